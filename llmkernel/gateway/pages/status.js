"use strict";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) { bytes /= 1024; unit += 1; }
  return `${bytes.toFixed(unit && bytes < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

function fact(name, value, share) {
  const box = make("div");
  box.append(make("span", "value", value), make("span", "name", name));
  if (share !== undefined) {
    const meter = make("div", "meter"), bar = make("i");
    bar.style.width = `${Math.min(100, Math.max(0, 100 * share))}%`;
    meter.append(bar);
    box.append(meter);
  }
  return box;
}

function chart(speeds) {
  const figure = make("div"), width = 300, height = 90;
  const top = Math.max(...speeds, 1);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "speed");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Tokens per second; at most ${Math.round(top)} in the last five minutes`);
  const start = width - speeds.length;
  const points = speeds.map((speed, index) => `${start + index + 1},${(height - 2 - (height - 6) * speed / top).toFixed(1)}`);
  const base = document.createElementNS(SVG, "line");
  for (const [name, value] of [["x1", 0], ["x2", width], ["y1", height - 1], ["y2", height - 1]]) base.setAttribute(name, value);
  svg.append(base);
  if (points.length) {
    const area = document.createElementNS(SVG, "path"), edge = document.createElementNS(SVG, "path");
    area.setAttribute("class", "area");
    area.setAttribute("d", `M${start + 1},${height} L${points.join(" L")} L${width},${height} Z`);
    edge.setAttribute("class", "edge");
    edge.setAttribute("d", `M${points.join(" L")}`);
    svg.append(area, edge);
  }
  figure.append(make("span", "soft", `Tokens per second over five minutes, at most ${Math.round(top)}`), svg);
  return figure;
}

function workerCard(worker) {
  const card = make("section", "card"), head = make("div", "head");
  const tone = { ready: "good", loading: "warn", leaving: "warn", draining: "warn" }[worker.state] || "bad";
  head.append(make("h3", "", worker.model), make("span", `state ${tone}`, worker.state));
  const form = [worker.name, worker.device, worker.dtype, worker.quantization === "none" ? "" : worker.quantization];
  head.append(make("span", "soft", form.filter(Boolean).join(" · ")), make("span", "soft push", `up ${duration(worker.uptime)}`));
  const facts = make("div", "facts"), used = worker.blocks - worker.free_blocks;
  facts.append(
    fact("tokens/s, last 10 s", worker.tokens_per_second.toFixed(1)),
    fact("running in the batch", `${worker.running} of ${worker.max_concurrent}`, worker.running / (worker.max_concurrent || 1)),
    fact("waiting", `${worker.waiting} of ${worker.queue}`, worker.waiting / (worker.queue || 1)),
    fact("KV cache in use", `${used} of ${worker.blocks} blocks`, used / (worker.blocks || 1)),
    fact("memory", size(worker.memory_bytes)),
    fact("weights + KV cache", `${size(worker.weights_bytes)} + ${size(worker.kv_cache_bytes)}`),
    fact("context", `${worker.context_length} tokens`),
  );
  if (worker.unloads_after !== null) facts.append(fact("leaves when idle for", duration(worker.unloads_after)));
  card.append(head, facts, chart(worker.speeds));
  return card;
}

function requestRow(request) {
  const row = make("tr"), ok = request.outcome === "ok";
  row.append(make("td", "soft", new Date(request.at).toLocaleTimeString()), make("td", "", request.route), make("td", "", request.model || "–"));
  row.append(make("td", ok ? "good" : request.outcome === "dropped" ? "warn" : "bad", ok ? "ok" : `${request.outcome} ${request.status}`));
  const seconds = (value) => (value === null ? "–" : value.toFixed(2));
  for (const value of [request.prompt_tokens, request.generated_tokens, seconds(request.first_token), seconds(request.seconds)]) row.append(make("td", "number", String(value)));
  return row;
}

function show(status) {
  byId("version").textContent = status.version;
  byId("flight").textContent = `${status.in_flight} of ${status.most_in_flight} requests in flight`;
  const cards = status.workers.map(workerCard);
  for (const [name, stage] of Object.entries(status.loading)) cards.push(make("section", "card warn", `${name} is loading: ${stage}`));
  for (const [name, why] of Object.entries(status.unloaded)) cards.push(make("p", "empty", `${name} is loaded by the next request for it. ${why && `Its last load failed: ${why}`}`));
  byId("workers").replaceChildren(...(cards.length ? cards : [make("p", "empty", "No worker runs.")]));
  byId("requests").replaceChildren(...status.requests.map(requestRow));
  byId("none").hidden = status.requests.length > 0;
}

async function refresh() {
  const problem = byId("problem");
  try {
    // a page opened with the token in its address has a base that fetch refuses, for its credentials
    const base = location.origin + location.pathname;
    const answer = await fetch(new URL("llmkernel/status", base), { cache: "no-store" });
    if (!answer.ok) throw new Error(`The gateway answers ${answer.status}.`);
    show(await answer.json());
    problem.hidden = true;
  } catch (error) {
    problem.textContent = error instanceof TypeError ? "The gateway does not answer." : error.message;
    problem.hidden = false;
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
