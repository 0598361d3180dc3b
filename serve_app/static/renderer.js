/**
 * Points on a WebGL 2 canvas: one buffer of places, one of label slots, and index buffers that say which of
 * them are drawn. Nothing is uploaded while the view moves.
 * @module
 */

import { SLOTS } from "./palette.js";

const VERTEX = `#version 300 es
in vec2 place;
in float slot;
uniform vec4 view;
uniform vec3 palette[${SLOTS}];
uniform float size;
out vec3 colour;
void main() {
  gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0);
  gl_PointSize = size;
  colour = palette[int(slot)];
}`;

// A disc with an outline; both edges are blended over one pixel.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 colour;
uniform float size;
uniform float alpha;
uniform float outlineWidth;
uniform vec3 outline;
out vec4 result;
void main() {
  float fromEdge = 0.5 * size - length(gl_PointCoord - 0.5) * size;
  float cover = clamp(fromEdge, 0.0, 1.0) * alpha;
  if (cover <= 0.0) discard;
  vec3 inside = outlineWidth > 0.0 ? mix(outline, colour, clamp(fromEdge - outlineWidth, 0.0, 1.0)) : colour;
  result = vec4(inside * cover, cover);
}`;

const UNIFORMS = ["view", "palette", "size", "alpha", "outlineWidth", "outline"];

/**
 * @typedef {object} Layer
 * @property {"all" | "marked" | "focus"} rows which index buffer
 * @property {number} size_px in device pixels
 * @property {number} alpha
 * @property {number} outline_px width, 0 for none
 * @property {number[]} outline red, green, blue in 0..1
 * @property {number} [share] of the rows to draw, in their order
 */

export class PointRenderer {
  /**
   * @param {HTMLCanvasElement} canvas
   * @throws {Error} when the browser has no WebGL 2
   */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("This browser has no WebGL 2.");
    this._gl = gl;
    this._program = linked(gl);
    this._uniforms = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(this._program, name)]));
    this._places = gl.createBuffer();
    this._slots = gl.createBuffer();
    this._rows = { all: indices(gl), marked: indices(gl), focus: indices(gl) };
    gl.useProgram(this._program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /**
   * @param {Float32Array} xy
   * @param {Uint8Array} slots
   */
  setPoints(xy, slots) {
    this._attribute("place", this._places, xy, 2, this._gl.FLOAT);
    this.setSlots(slots);
  }

  /** @param {Uint8Array} slots */
  setSlots(slots) {
    this._attribute("slot", this._slots, slots, 1, this._gl.UNSIGNED_BYTE);
  }

  /**
   * @param {"all" | "marked" | "focus"} name
   * @param {Uint32Array} rows drawn in this order
   */
  setRows(name, rows) {
    const gl = this._gl;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this._rows[name].buffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, rows, gl.DYNAMIC_DRAW);
    this._rows[name].count = rows.length;
  }

  /** @param {number[]} palette 3 × SLOTS numbers in 0..1 */
  setColours(palette) {
    this._gl.uniform3fv(this._uniforms.palette, palette);
  }

  /**
   * @param {number[]} view of `Camera.clip`
   * @param {Layer[]} layers from back to front
   */
  draw(view, layers) {
    const gl = this._gl;
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform4fv(this._uniforms.view, view);
    for (const { rows, size_px, alpha, outline_px, outline, share = 1 } of layers) {
      const { buffer, count } = this._rows[rows];
      if (!count) continue;
      gl.uniform1f(this._uniforms.size, size_px);
      gl.uniform1f(this._uniforms.alpha, alpha);
      gl.uniform1f(this._uniforms.outlineWidth, outline_px);
      gl.uniform3fv(this._uniforms.outline, outline);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
      gl.drawElements(gl.POINTS, Math.ceil(count * share), gl.UNSIGNED_INT, 0);
    }
  }

  /**
   * @param {string} name
   * @param {WebGLBuffer | null} buffer
   * @param {ArrayBufferView} data
   * @param {number} size
   * @param {number} type
   */
  _attribute(name, buffer, data, size, type) {
    const gl = this._gl;
    const location = gl.getAttribLocation(this._program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, size, type, false, 0, 0);
  }
}

/** @param {WebGL2RenderingContext} gl */
const indices = (gl) => ({ buffer: gl.createBuffer(), count: 0 });

/**
 * @param {WebGL2RenderingContext} gl
 * @returns {WebGLProgram}
 */
function linked(gl) {
  const program = gl.createProgram();
  for (const [type, source] of /** @type {const} */ ([
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ])) {
    const shader = gl.createShader(type);
    if (!shader) break; // the context is lost; linking fails below
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    throw new Error(`The graphics driver refused the map: ${gl.getProgramInfoLog(program) ?? "context lost"}`);
  }
  return program;
}
