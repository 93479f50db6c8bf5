// Keeps the page up to date: asks for what has changed, and patches elements in place.
//
// The server tells elements as [tag, attributes, children] and texts as strings. Nothing is ever
// parsed as HTML: elements are made by name from a list, texts are text nodes. Elements that stay
// are kept, with their focus, their scroll position and whether they are open.
"use strict";
(() => {
  const INTERVAL_MS = 2000;
  const PATIENCE_MS = 8000;
  const SVG = new Set(["svg", "title", "desc", "g", "rect", "line", "path", "circle", "text"]);
  const HTML = new Set([
    "a", "abbr", "article", "b", "caption", "dd", "details", "div", "dl", "dt", "h3", "h4", "i",
    "li", "ol", "p", "small", "span", "strong", "summary", "table", "tbody", "td", "th", "thead",
    "time", "tr", "ul",
  ]);
  const ATTRIBUTE =
    /^(class|id|role|scope|title|datetime|colspan|tabindex|data-key|data-label|aria-[a-z]+|viewBox|preserveAspectRatio|width|height|[xy][12]?|c[xy]|r|d)$/;

  const digests = new Map(
    document.body.dataset.digests.split(" ").map((pair) => pair.split(":")),
  );
  let paused = false;
  let timer = 0;
  let answered = Date.now();

  function make(node) {
    if (typeof node === "string") return document.createTextNode(node);
    const [tag] = node;
    let made;
    if (SVG.has(tag)) made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    else if (HTML.has(tag)) made = document.createElement(tag);
    else throw new Error("no element of this page: " + tag);
    patch(made, node);
    return made;
  }

  function isSame(old, node) {
    if (typeof node === "string") return old.nodeType === Node.TEXT_NODE;
    return (
      old.nodeType === Node.ELEMENT_NODE &&
      old.localName === node[0] &&
      old.getAttribute("data-key") === (node[1]["data-key"] ?? null)
    );
  }

  function patch(old, [, attributes, children]) {
    for (const name of old.getAttributeNames()) {
      // What its reader opened stays open.
      if (!(name in attributes) && name !== "open") old.removeAttribute(name);
    }
    for (const [name, value] of Object.entries(attributes)) {
      if (ATTRIBUTE.test(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    patchChildren(old, children);
  }

  function patchChildren(parent, nodes) {
    const keyed = new Map();
    for (const child of parent.children) {
      const key = child.getAttribute("data-key");
      if (key !== null) keyed.set(child.localName + " " + key, child);
    }
    let at = parent.firstChild;
    for (const node of nodes) {
      let found = at;
      const key = typeof node === "string" ? undefined : node[1]["data-key"];
      if (key !== undefined) {
        found = keyed.get(node[0] + " " + key) ?? null;
        keyed.delete(node[0] + " " + key);
      }
      if (found !== null && isSame(found, node)) {
        if (found === at) at = at.nextSibling;
        else parent.insertBefore(found, at);
        if (typeof node === "string") {
          if (found.data !== node) found.data = node;
        } else patch(found, node);
      } else parent.insertBefore(make(node), at);
    }
    while (at !== null) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function show(found) {
    for (const [name, nodes] of Object.entries(found.parts)) {
      const part = document.getElementById("part-" + name);
      if (part === null) continue;
      patchChildren(part, nodes);
      digests.set(name, found.digests[name]);
    }
    const now = document.getElementById("now");
    const time = new Date(found.now_ms).toISOString();
    now.dateTime = time;
    now.textContent = time.slice(0, 19).replace("T", " ") + "Z";
    const name = found.server.name ? " " + found.server.name : "";
    document.title = found.server.state + " – Scoregate" + name;
  }

  // One voice for what is not the server's own state: that it does not answer.
  function tell(text) {
    if (link.textContent !== text) link.textContent = text;
    document.body.classList.toggle("stale", text !== "");
  }

  async function ask() {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    let wait = INTERVAL_MS;
    try {
      const answer = await fetch("/console/data", {
        headers: { "Scoregate-Seen": [...digests].map((pair) => pair.join(":")).join(" ") },
        cache: "no-store",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const found = await answer.json();
      // Another server, or another version of it: its page fits its data.
      if (found.build !== document.body.dataset.build) return location.reload();
      show(found);
      answered = Date.now();
      tell("");
    } catch {
      wait = 2 * INTERVAL_MS;
      const since = Math.round((Date.now() - answered) / 1000);
      if (since >= 4) {
        const at = new Date(answered).toISOString().slice(11, 19);
        tell("✖ No answer from the server since " + at + "Z: what is shown is old. Trying again.");
      }
    }
    clearTimeout(timer);
    timer = setTimeout(ask, wait);
  }

  const link = document.createElement("p");
  link.className = "lost";
  link.setAttribute("role", "status");
  document.getElementById("part-state").before(link);

  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Pause updates";
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    document.body.classList.toggle("paused", paused);
    ask();
  });
  document.getElementById("clock").append(" ", button);
  document.addEventListener("visibilitychange", ask);
  timer = setTimeout(ask, INTERVAL_MS);
})();
