/**
 * Server-sent events over `fetch`: `EventSource` cannot send an API key.
 * @module
 */

import { Problem, request } from "./wire.js";


/** The service pings every 30 s: a stream silent for three pings is dead. */
const SILENCE_MS = 90_000;
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 15_000;

/** @typedef {{id: string, event: string, data: string}} ServerEvent */

/**
 * Split a stream of text into events (WHATWG HTML, 9.2.6), ignoring comments and `retry`.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<ServerEvent | null>} null for a comment, which only shows that the line is alive
 */
export async function* parseEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = { id: "", event: "message", data: /** @type {string[]} */ ([]) };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { ...event, data: event.data.join("\n") };
        event = { id: event.id, event: "message", data: [] };
        continue;
      }
      if (line.startsWith(":")) yield null;
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
      if (field === "data") event.data.push(text);
      else if (field === "id") event.id = text;
      else if (field === "event") event.event = text;
    }
  }
}

/**
 * Follow a stream until it ends by itself after an event for which `isLast` holds, reconnecting with
 * `Last-Event-ID` and growing pauses whenever it breaks.
 * @param {string} path
 * @param {{onEvent: (event: ServerEvent) => void, isLast: (event: ServerEvent) => boolean,
 *   onBreak: (retryMs: number) => void, signal: AbortSignal}} options
 * @returns {Promise<void>} resolved at the end, rejected with `Problem` when the service refuses
 */
export async function follow(path, { onEvent, isLast, onBreak, signal }) {
  let lastId = "";
  let pauseMs = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      for await (const event of connect(path, lastId, signal)) {
        pauseMs = FIRST_PAUSE_MS;
        lastId = event.id || lastId;
        onEvent(event);
        if (isLast(event)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500) throw error;
    }
    onBreak(pauseMs);
    await pause(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS);
  }
}

/**
 * @param {string} path
 * @param {string} lastId
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<ServerEvent>}
 */
async function* connect(path, lastId, signal) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
    const response = await request(path, { headers, signal: AbortSignal.any([signal, silence.signal]) });
    if (!response.body || response.status === 204) return;
    for await (const event of parseEvents(response.body)) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      if (event) yield event;
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
