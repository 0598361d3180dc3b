"""The table of `make bench`: which figure of which part answers each row, and what it has to reach."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        what: for people.
        part: the part that measures it.
        figure: where in the part's JSON, keys in order.
        sign: whether the figure must be at least or at most `reach`; None for a figure without a goal.
    """

    what: str
    part: str
    figure: tuple[str, ...]
    sign: Literal["≥", "≤", "<"] | None = None
    reach: float = 0.0
    unit: str = ""

    def verdict(self, results: dict[str, Any]) -> tuple[str, str, str]:
        """Measured value, goal, mark. What did not run is `not measured`, with the reason where the part left one."""
        goal = f"{self.sign} {self.reach:g}{self.unit}" if self.sign else "–"
        found: Any = results.get(self.part)
        for key in self.figure:
            found = found.get(key) if isinstance(found, dict) else found
        if isinstance(found, str):
            return "–", goal, f"not measured: {found}"
        if found is None:
            return "–", goal, "not measured: not in this run"
        value = f"{float(found):.4g}{self.unit}"
        if self.sign is None:
            return value, goal, ""
        reached = {"≥": found >= self.reach, "≤": found <= self.reach, "<": found < self.reach}[self.sign]
        return value, goal, "✓" if reached else "✗"


def _throughput(model: str) -> list[Row]:
    part = f"throughput {model}"

    def row(what: str, *figure: str, sign: Any = None, reach: float = 0.0, unit: str = "") -> Row:
        return Row(f"{model}: {what}", part, ("precisions", *figure), sign, reach, unit)

    plain = ("1 process", "processes batch 1", "processes batch 4")
    return [
        *[row(f"bare forward of transformers, {kind}", "fp32", f"forward {kind}", unit="/s") for kind in plain],
        row("bare forward of the service's model, a process a core", "fp32", "own_forward", unit="/s"),
        row("loop", "fp32", "loop", unit="/s"),
        row("service fp32", "fp32", "service", unit="/s"),
        row("service fp32 over loop", "fp32", "over_loop", sign="≥", reach=1.35),
        row("service fp32 over the best plain forward", "fp32", "over_plain_forward", sign="≥", reach=0.93),
        row("service fp32 over the best forward, its own included", "fp32", "over_forward", sign="≥", reach=0.93),
        row("service int8 over loop", "int8", "over_loop", sign="≥", reach=2.5),
        row("service bf16 over loop", "bf16", "over_loop"),
        row("POST of one image, p50 over a plain batch-1 pass", "fp32", "single_over_bare", sign="≤", reach=1.2),
        row("POST of one image, p50 over the same model's pass", "fp32", "single_over_own", sign="≤", reach=1.2),
        row("64 callers of single images over the job", "fp32", "callers_over_job", sign="≥", reach=0.9),
        row("POST to first committed batch, warm", "fp32", "first_batch_s", sign="<", reach=2.0, unit=" s"),
        row("120 images after five idle minutes, over loop", "fp32", "idle_over_loop", sign="≥", reach=1.35),
        row("the same, over its model's pass", "fp32", "idle_over_own_forward", sign="≥", reach=0.85),
        row("the same, POST to first committed batch", "fp32", "idle_first_batch_s", sign="≤", reach=1.5, unit=" s"),
        row("first map's extra wait", "fp32", "first_map_extra_s", sign="<", reach=1.0, unit=" s"),
        row("start to ready, weights cached", "fp32", "start_s", sign="≤", reach=12.0, unit=" s"),
    ]


def _family(model: str, *, takes_text: bool) -> list[Row]:
    rows = [
        Row(f"{model}: service fp32", "families", (model, "service"), unit="/s"),
        Row(f"{model}: service fp32 over loop", "families", (model, "over_loop"), "≥", 1.35),
    ]
    text = Row(f"{model}: POST of one text, p50", "families", (model, "text_p50_ms"), "≤", 30, " ms")
    return [*rows, text] if takes_text else rows


ROWS = [
    *_throughput("dinov2-small"),
    *_throughput("dinov2-base"),
    *_family("dinov3-small", takes_text=False),
    *_family("siglip2-base", takes_text=True),
    *_family("clip-base", takes_text=True),
    Row("int8 to fp32, mean cosine on photographs", "parity", ("int8", "mean"), "≥", 0.99),
    Row("int8 to fp32, worst cosine", "parity", ("int8", "worst"), "≥", 0.97),
    Row("bf16 to fp32, mean cosine", "parity", ("bf16", "mean"), "≥", 0.999),
    Row("bf16 to fp32, worst cosine", "parity", ("bf16", "worst"), "≥", 0.99),
    Row("writer, FLOAT[768], commits of 256", "writer", ("median", "rows_per_s"), "≥", 8000, " rows/s"),
    *[
        Row(f"top-10 of {rows:,}, {percentile}", "search", ("search", str(rows), f"{percentile}_ms"), unit=" ms")
        for rows in (10_000, 100_000, 1_000_000)
        for percentile in ("p50", "p99")
    ],
    Row("map of 1,000 vectors", "reduce", ("reduce", "1000", "median_s"), unit=" s"),
    Row("map of 10,000 vectors", "reduce", ("reduce", "10000", "median_s"), "<", 20, " s"),
    Row("map of 100,000 vectors", "reduce", ("reduce", "100000", "median_s"), "<", 240, " s"),
    Row("500 streams: delay of an event, p99", "sse", ("event_delay_p99_s",), unit=" s"),
    Row("500 streams: share of its speed the job loses", "sse", ("job_loses",), "<", 0.05),
    Row("growth of any process, 1,000 to 100,000 samples", "memory", ("largest_growth_mb",), "<", 150, " MB"),
    Row("dinov2-base bf16 on a GPU over the bare compiled forward", "gpu", ("over_forward",), "≥", 0.9),
    Row("the same with JPEG decode, over the slower of the two", "gpu", ("over_slower",), "≥", 0.9),
    Row("the same, cosine to fp32", "gpu", ("cosine",), "≥", 0.999),
]
