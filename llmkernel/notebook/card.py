"""A worker's card: what it holds and does, as one output; the same as text."""

from __future__ import annotations

from llmkernel.connection import Connection
from llmkernel.notebook import hypertext
from llmkernel.notebook.hypertext import element, literal
from llmkernel.notebook.tables import HTML, Bundle, fields
from llmkernel.protocol import ModelInfo, StatusReport
from llmkernel.report import details, headline, hit_rate
from llmkernel.units import duration, size

_CARD = "border:1px solid rgba(128,128,128,0.4);border-radius:4px;padding:0.6em 0.9em"
_CARD += ";max-width:62em;overflow-wrap:anywhere"
_TILES = "display:grid;grid-template-columns:repeat(auto-fit,minmax(8em,1fr));gap:0.7em 1.2em"
_TILES += ";margin:0.6em 0"
_LABEL = "font-size:0.85em;opacity:0.8"
_VALUE = "font-size:1.15em;font-weight:bold"
_MORE = "font-size:0.85em;opacity:0.8"
_TRACK = "height:0.4em;border-radius:2px;background-color:rgba(128,128,128,0.25)"
_SIGNS = {"ready": "●", "loading": "◐", "draining": "◑", "stopping": "◌"}


def card(worker: Connection, report: StatusReport, as_of: str = "") -> Bundle:
    """The card of one worker now; `as_of` is the time of day where it stays as it is."""
    facts = [*details(worker, report), *([("as of", as_of)] * bool(as_of))]
    table = fields(facts)
    parts = [_head(worker, report, as_of)]
    if report.model is not None:
        parts.append(element("div", "".join(_tiles(report, report.model)), style=_TILES))
    parts.append(_unfolding(table))
    return table | {HTML: element("div", "".join(parts), style=_CARD)}


def gone(worker: Connection, when: str) -> Bundle:
    """What is left of the card of a worker that went, seen at that time of day."""
    said = f"○ gone, seen at {when}"
    head = f"{literal(worker.name, 'b')} &nbsp; {literal(said, style='opacity:0.85')}"
    more = literal(worker.model, "div", style=_MORE)
    facts = [("name", worker.name), ("state", "gone"), ("seen", when), ("model", worker.model)]
    return fields(facts) | {HTML: element("div", element("div", head) + more, style=_CARD)}


def line(report: StatusReport) -> str:
    """The same in one line, for a terminal that is written on and on."""
    load, rate = report.load, hit_rate(report.load)
    facts = [report.state, f"{load.running} running", f"{load.waiting} waiting"]
    facts.append(f"{load.tokens_per_second:.1f} tokens/s")
    facts.append(f"cache hits {_percent(rate)}")
    facts.append(size(report.device_bytes or report.rss_bytes))
    return " · ".join(facts)


def _head(worker: Connection, report: StatusReport, as_of: str) -> str:
    state = f"{_SIGNS.get(report.state, '○')} {report.state}, up {duration(report.uptime)}"
    state += f", as of {as_of}" * bool(as_of)
    name = literal(worker.name, "b")
    state = literal(state, style="opacity:0.85")
    line = literal(headline(report), "div", style=_MORE)
    return element("div", f"{name} &nbsp; {state}") + line


def _tiles(report: StatusReport, model: ModelInfo) -> list[str]:
    load, rate = report.load, hit_rate(report.load)
    blocks = max(1, model.kv_blocks - 1)  # one belongs to nobody
    used = max(0, blocks - load.free_blocks)  # what is free may be cached, what is cached in use
    weights = f"{model.quantization if model.quantization != 'none' else 'not quantised'}"
    return [
        _tile("Weights", size(model.weights_bytes), more=f"{weights}, {model.dtype}"),
        _tile("Memory", size(report.device_bytes or report.rss_bytes), more=f"on {model.device}"),
        _tile("Batch", str(load.running), of=model.max_concurrent),
        _tile("Queue", str(load.waiting), of=model.queue),
        _tile("Tokens/s", f"{load.tokens_per_second:.1f}", more="over ten seconds"),
        _tile("Cache hits", _percent(rate), share=rate, more="of prompts"),
        _tile(
            "Context in use",
            _percent(used / blocks),
            share=used / blocks,
            more=f"of {size(model.kv_cache_bytes)}",
        ),
    ]


def _tile(
    label: str, value: str, *, of: int = 0, share: float | None = None, more: str = ""
) -> str:
    if of:
        share, more = int(value) / of, f"of {of}"
    parts = element("div", hypertext.text(label), style=_LABEL)
    shown = element("span", hypertext.text(value), style=_VALUE)
    if share is None:
        parts += element("div", shown) + literal(more, "div", style=_MORE)
    else:
        parts += element("div", f"{shown} {literal(more, style=_MORE)}") + _bar(share)
    return element("div", parts, style="min-width:0")


def _bar(share: float) -> str:
    width = f"{100 * min(1.0, max(0.0, share)):.0f}%"
    filled = f"width:{width};height:0.4em;border-radius:2px;background-color:rgba(0,114,178,0.85)"
    return element("div", element("div", "", style=filled), style=_TRACK)


def _unfolding(table: Bundle) -> str:
    title = element("summary", "All there is to know", style=f"cursor:pointer;{_MORE}")
    return element("details", title + hypertext.of(table))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
