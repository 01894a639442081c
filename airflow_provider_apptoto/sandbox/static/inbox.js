"use strict";

// Everything that was sent is shown by textContent: a message can't become a part of the page.

const ROW = 76; // pixels, as in inbox.css
const PAGE = 500;
const SPARE = 6; // rows above and below the visible ones
const CHANNELS = { sms: "SMS", email: "E-mail", call: "Call" };
const OUTCOMES = { accepted: "Accepted", refused: "Refused", fault: "Fault" };

const byId = (id) => document.getElementById(id);
const list = byId("list");
const spacer = byId("spacer");
const detail = byId("detail");
const filters = byId("filters");

let items = []; // the newest messages that match, newest first, without a gap
let total = 0;
let chosen = null; // the entry that is shown
let search = 0; // number of the current search: answers to an older one are dropped
let rows = []; // elements, reused while scrolling

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function call(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer;
}

// Runs a function once at a time; calls while it runs lead to one more run.
function coalesced(work, pause) {
  let isRunning = false;
  let isWanted = false;
  return async function run() {
    if (isRunning) {
      isWanted = true;
      return;
    }
    isRunning = true;
    try {
      await work();
      await new Promise((done) => setTimeout(done, pause));
    } catch (error) {
      console.warn(error.message); // the stream reconnects, and loads again
    } finally {
      isRunning = false;
    }
    if (isWanted) {
      isWanted = false;
      run();
    }
  };
}

// --- the messages

function query(extra) {
  const fields = new URLSearchParams({ limit: PAGE, ...extra });
  for (const [name, value] of new FormData(filters)) if (value.trim()) fields.set(name, value);
  return `sandbox/messages?${fields}`;
}

async function fetched(extra) {
  const current = search;
  const answer = await call(query(extra));
  const found = await answer.json();
  if (current !== search) return null;
  total = Number(answer.headers.get("X-Total-Count"));
  return found;
}

const load = coalesced(async () => {
  search += 1;
  const found = await fetched({});
  if (found === null) return;
  items = found.reverse();
  const same = chosen && items.find((entry) => entry.id === chosen.id);
  if (same && same.received_at !== chosen.received_at) showDetail(null); // the sandbox was restarted
  showList();
}, 50);

const loadNewer = coalesced(async () => {
  const since = items.length ? items[0].id : 0;
  const found = await fetched({ since_id: since });
  if (found === null) return;
  if (since !== (items.length ? items[0].id : 0)) {
    loadNewer(); // the list was loaded meanwhile
    return;
  }
  items.unshift(...found.reverse());
  // Messages that arrive while somebody reads further down don't move what they read.
  const isReading = list.scrollTop > ROW;
  showSize();
  if (isReading) list.scrollTop += found.length * ROW;
  showList();
  if (found.length === PAGE) loadNewer();
}, 100);

async function addOlder() {
  if (items.length === 0 || items.length >= total) return;
  const oldest = items[items.length - 1].id;
  const found = await fetched({ before_id: oldest });
  if (found === null || items[items.length - 1]?.id !== oldest) return;
  items.push(...found.reverse());
  if (found.length === 0) total = items.length;
  showList();
}

const loadOlder = coalesced(addOlder, 0);

const loadSummary = coalesced(async () => {
  const summary = await (await call("sandbox/summary")).json();
  showDags(summary.dags);
  showFaults(summary.faults);
}, 200);

// --- the list

function showSize() {
  if (items.length > total) items.length = total; // the oldest were dropped
  spacer.style.height = `${total * ROW}px`;
}

function showList() {
  showSize();
  const isFiltered = [...new FormData(filters).values()].some((value) => value.trim() && value !== "any");
  byId("count").textContent = `${total} message${total === 1 ? "" : "s"}`;
  showTitle();
  byId("empty").hidden = total > 0;
  byId("empty-title").textContent = isFiltered ? "No message matches" : "No messages yet";
  byId("how-to").hidden = isFiltered;
  list.hidden = total === 0;
  if (total === 0) showDetail(null);
  else if (detail.hidden) showHint();
  showRows();
}

function showTitle() {
  const view = byId("messages-view").hidden ? "Appointments" : `Inbox (${total})`;
  document.title = `${view} · Apptoto sandbox`;
}

function showRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(total, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  const needed = last - first;
  while (rows.length < needed) rows.push(newRow());
  if (rows.length > needed + 50) for (const row of rows.splice(needed)) row.root.remove();
  const shown = new Set();
  for (let index = first; index < last; index += 1) {
    const row = rows[index % rows.length];
    shown.add(row);
    fillRow(row, index);
  }
  for (const row of rows) row.root.hidden = !shown.has(row);
  const active = chosen && rows.find((row) => shown.has(row) && row.entry?.id === chosen.id);
  if (active) list.setAttribute("aria-activedescendant", active.root.id);
  else list.removeAttribute("aria-activedescendant");
  if (last > items.length) loadOlder();
}

function newRow() {
  const names = ["who", "when", "what", "from"];
  const parts = Object.fromEntries(names.map((name) => [name, element("div", { className: name })]));
  const root = element("div", { className: "row", role: "option" }, ...Object.values(parts));
  list.append(root);
  return { root, parts, entry: undefined, isFilled: false, index: -1 };
}

function fillRow(row, index) {
  const entry = items[index];
  const isChosen = Boolean(entry && chosen && entry.id === chosen.id);
  row.root.setAttribute("aria-selected", String(isChosen));
  if (row.index !== index) row.root.style.transform = `translateY(${index * ROW}px)`;
  row.root.setAttribute("aria-posinset", String(index + 1));
  row.root.setAttribute("aria-setsize", String(total));
  row.index = index;
  // Not by id: after a restart of the sandbox, other messages have the same ids.
  if (row.isFilled && row.entry === entry) return;
  row.isFilled = true;
  row.entry = entry;
  row.root.id = entry ? `message-${entry.id}` : `loading-${index}`;
  const { who, when, what, from } = row.parts;
  who.replaceChildren(entry ? element("bdi", {}, recipient(entry)) : "Loading");
  when.textContent = entry ? time(entry.received_at) : "";
  what.replaceChildren(...(entry ? [channelTag(entry), element("bdi", {}, snippet(entry))] : []));
  from.replaceChildren(...(entry ? [outcomeTag(entry), sender(entry)].filter(Boolean) : []));
}

// What one participant of an appointment got.
function isCopy(entry) {
  return typeof entry.recipient_name === "string";
}

function recipient(entry) {
  if (isCopy(entry)) return [entry.recipient_name, entry.to].filter(Boolean).join(", ");
  const targets = [];
  if (entry.to !== null) targets.push(entry.to);
  if (entry.participant_id !== null) targets.push(`Participant ${entry.participant_id}`);
  if (entry.event_id !== null) targets.push(`Everybody at event ${entry.event_id}`);
  return targets.join(", ") || "No recipient";
}

function snippet(entry) {
  const texts = [entry.subject, entry.message].filter((text) => text !== null);
  if (texts.length === 0 && entry.template_id !== null) texts.push(`Template ${entry.template_id}`);
  return texts.join(" · ").slice(0, 200) || "No text";
}

function sender(entry) {
  const task = entry.task_id ? `${entry.dag_id}.${entry.task_id}` : entry.dag_id;
  return task ? element("bdi", {}, task) : null;
}

function channelTag(entry) {
  const known = Object.hasOwn(CHANNELS, entry.type ?? "");
  const className = `tag ${known ? entry.type : "other"}`;
  return element("span", { className }, known ? CHANNELS[entry.type] : (entry.type ?? "?"));
}

function outcomeTag(entry) {
  if (entry.outcome === "accepted") {
    if (!entry.delivered) return element("span", { className: "tag refused" }, "Not delivered");
    return entry.error ? element("span", { className: "tag fault" }, "Has gaps") : null;
  }
  const stored = entry.outcome === "fault" && entry.delivered ? ", stored" : "";
  const status = entry.status === null ? "" : ` ${entry.status}`;
  return element("span", { className: `tag ${entry.outcome}` }, `${OUTCOMES[entry.outcome]}${status}${stored}`);
}

// Made once: making one takes longer than to draw a row.
const timeOfDay = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

function time(text) {
  const at = new Date(text);
  const isToday = at.toDateString() === new Date().toDateString();
  return (isToday ? timeOfDay : dayAndTime).format(at);
}

// --- one message

async function choose(index, { isOpened = false } = {}) {
  const entry = items[index];
  if (!entry) return;
  chosen = entry;
  const top = index * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  showRows();
  try {
    const whole = await (await call(`sandbox/messages/${entry.id}`)).json();
    if (chosen === null || chosen.id !== entry.id) return;
    showDetail(whole);
    if (isOpened) detail.querySelector("h2").focus();
  } catch (error) {
    load(); // it was deleted meanwhile
  }
}

async function chooseLast() {
  const current = search;
  while (items.length < total && current === search) await addOlder();
  choose(items.length - 1);
}

function showHint() {
  detail.hidden = false;
  detail.classList.add("none");
  detail.replaceChildren(element("p", { className: "hint quiet" }, "Choose a message to read it."));
}

function showDetail(entry) {
  detail.classList.toggle("none", entry === null);
  if (entry === null) {
    chosen = null;
    detail.hidden = total === 0;
    if (total > 0) showHint();
    showRows();
    return;
  }
  detail.hidden = false;
  const back = element("button", { type: "button", className: "back" }, "Back");
  back.addEventListener("click", close);
  const others = element("button", { type: "button" }, "All to this recipient");
  others.addEventListener("click", () => {
    filters.reset();
    filters.elements.text.value = String(entry.to ?? entry.participant_id ?? entry.event_id ?? "");
    load();
  });
  const remove = element("button", { type: "button", className: "danger" }, "Delete");
  remove.addEventListener("click", removeChosen);
  const heading = element("h2", { tabIndex: -1 }, element("bdi", {}, recipient(entry)));
  const json = JSON.stringify(entry, null, 2);
  const raw = element("details", {}, element("summary", {}, "As JSON"), element("pre", {}, json));
  detail.replaceChildren(
    element("header", {}, back, channelTag(entry), heading, element("div", { className: "actions" }, others, remove)),
    ...[explanation(entry), preview(entry), facts(entry), raw].filter(Boolean),
  );
  detail.scrollTop = 0;
}

function explanation(entry) {
  if (entry.outcome === "accepted") {
    const className = `note ${entry.delivered ? "fault" : "refused"}`;
    return entry.error ? element("p", { className }, entry.error) : null;
  }
  const got = entry.delivered
    ? "The recipient got the message, but the sender can't know."
    : "The recipient did not get the message.";
  return element("p", { className: `note ${entry.outcome}` }, `${entry.error} ${got}`);
}

function preview(entry) {
  if (entry.message === null) return null;
  if (entry.type === "sms") return phone(entry);
  const body = element("div", { className: "body", dir: "auto" }, entry.message);
  if (entry.type === "email") {
    const head = element(
      "div",
      { className: "head" },
      element("div", { className: "subject", dir: "auto" }, entry.subject ?? "No subject"),
      element("div", { className: "quiet" }, "To ", element("bdi", {}, recipient(entry))),
    );
    return element("div", { className: "letter" }, head, body);
  }
  const title = entry.type === "call" ? "Read to the recipient on the phone" : "Text";
  const head = element("div", { className: "head quiet" }, title);
  return element("div", { className: "spoken" }, head, body);
}

function phone(entry) {
  const { parts, encoding, units, texts, not_gsm_7: others } = entry.segments;
  const bubble = element("div", { className: "bubble", dir: "auto" });
  texts.forEach((text, index) => {
    if (index > 0) bubble.append(element("span", { className: "seam" }, `Segment ${index + 1}`));
    bubble.append(text);
  });
  const count = `${parts} segment${parts === 1 ? "" : "s"}`;
  const because = others ? ` because of ${[...others].join(" ")}` : "";
  const to = element("div", { className: "to" }, element("bdi", {}, recipient(entry)));
  return element(
    "div",
    {},
    element("div", { className: "phone" }, to, bubble),
    element("p", { className: "quiet" }, `${count}, ${encoding}${because}, ${units} units (estimate)`),
  );
}

function facts(entry) {
  const mapped = entry.map_index === null || entry.map_index < 0 ? "" : ` [${entry.map_index}]`;
  const known = {
    Received: `${new Date(entry.received_at).toLocaleString()} (${entry.received_at})`,
    Outcome: OUTCOMES[entry.outcome] + (entry.status === null ? ", no answer" : `, status ${entry.status}`),
    DAG: entry.dag_id,
    Run: entry.run_id,
    Task: entry.task_id ? entry.task_id + mapped : null,
    Try: entry.try_number || null,
    "Sent by": entry.origin && entry.origin !== "task" ? entry.origin : null,
    Event: isCopy(entry) ? entry.event_id : null,
    Participant: isCopy(entry) ? entry.participant_id : null,
    "Text before its fields were filled": entry.unfilled,
    Subject: entry.type === "email" ? null : entry.subject,
    Template: entry.template_id,
  };
  const pairs = Object.entries(known).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  const shown = pairs.map(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, element("bdi", {}, String(value))),
  ]);
  return element("dl", {}, ...shown.flat());
}

function close() {
  showDetail(null);
  list.focus();
}

async function removeChosen() {
  if (chosen === null) return;
  const index = items.findIndex((entry) => entry.id === chosen.id);
  await call(`sandbox/messages/${chosen.id}`, { method: "DELETE" });
  if (index >= 0) {
    items.splice(index, 1);
    total -= 1;
  }
  chosen = null;
  showDetail(null);
  showList();
  list.focus();
  if (items.length) choose(Math.max(0, Math.min(index, items.length - 1)));
}

// --- DAGs, faults, buttons

function showDags(dags) {
  const select = filters.elements.dag_id;
  const value = select.value;
  const names = [...select.options].slice(1).map((option) => option.value);
  if (names.join("\n") === dags.join("\n")) return;
  select.replaceChildren(select.options[0], ...dags.map((dag) => element("option", { value: dag }, dag)));
  select.value = dags.includes(value) ? value : "";
  if (select.value !== value) load();
}

function showFaults(faults) {
  byId("active-faults").replaceChildren(...faults.map((fault) => element("li", {}, fault.description)));
  byId("no-faults").hidden = faults.length > 0;
  byId("clear-faults").hidden = faults.length === 0;
  byId("faults-count").hidden = faults.length === 0;
  byId("faults-count").textContent = faults.length;
}

// Says for a moment what happened, in place of the button's text.
function say(button, text, ms = 1500) {
  button.dataset.label ??= button.textContent;
  button.textContent = text;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = button.dataset.label;
    delete button.dataset.asked;
  }, ms);
}

byId("copy").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say(button, "Copied");
  } catch {
    say(button, "Copying is not allowed");
  }
});

byId("clear").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  if (button.dataset.asked === undefined) {
    say(button, total === 1 ? "Delete 1 message?" : `Delete ${total} messages?`, 4000);
    button.dataset.asked = "";
    return;
  }
  const fields = new URLSearchParams([...new FormData(filters)].filter(([, value]) => value.trim()));
  await call(`sandbox/messages?${fields}`, { method: "DELETE" });
  say(button, "Deleted");
  delete button.dataset.asked;
  load();
});

byId("faults-button").addEventListener("click", (event) => {
  const section = byId("faults");
  section.hidden = !section.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!section.hidden));
});
for (const button of document.querySelectorAll("[data-fault]")) {
  button.addEventListener("click", () => call("sandbox/faults", { method: "POST", body: button.dataset.fault }));
}
byId("clear-faults").addEventListener("click", () => call("sandbox/faults", { method: "DELETE" }));

let typing;
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    list.scrollTop = 0;
    load();
  }, 120);
});

// --- keys and scrolling

let isDrawn = true;
list.addEventListener("scroll", () => {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => {
    isDrawn = true;
    showRows();
  });
});
new ResizeObserver(showRows).observe(list);

list.addEventListener("click", (event) => {
  const row = rows.find((each) => each.root.contains(event.target));
  if (row) choose(row.index, { isOpened: getComputedStyle(detail).position === "fixed" });
});

list.addEventListener("keydown", (event) => {
  const at = chosen ? items.findIndex((entry) => entry.id === chosen.id) : -1;
  const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0 };
  if (event.key in moves) {
    event.preventDefault();
    choose(Math.max(0, Math.min(moves[event.key], items.length - 1)));
  } else if (event.key === "End") {
    event.preventDefault();
    chooseLast();
  } else if (event.key === "Enter" && at >= 0) {
    event.preventDefault();
    choose(at, { isOpened: true });
  }
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select");
  if (byId("messages-view").hidden) return;
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    filters.elements.text.focus();
  } else if (event.key === "Escape" && !isTyping) {
    close();
  } else if (event.key === "Delete" && !isTyping && chosen !== null) {
    event.preventDefault();
    removeChosen();
  }
});

// --- live

let stream = null;

function follow() {
  if (document.hidden) {
    // A browser opens few connections to one host, and each tab would keep one.
    stream?.close();
    stream = null;
    return;
  }
  if (stream !== null) return;
  stream = new EventSource("sandbox/stream");
  stream.addEventListener("open", () => {
    showLive(true);
    load();
    loadSummary();
  });
  stream.addEventListener("error", () => showLive(false));
  stream.addEventListener("messages", () => {
    loadNewer();
    loadSummary();
  });
  stream.addEventListener("deleted", () => {
    load();
    loadSummary();
  });
  stream.addEventListener("faults", loadSummary);
  // appointments.js shows them
  for (const name of ["open", "appointments"]) {
    stream.addEventListener(name, () => document.dispatchEvent(new Event("appointments")));
  }
}

function showLive(isLive) {
  byId("live").textContent = isLive ? "Live" : "The sandbox is not running";
  byId("live").classList.toggle("on", isLive);
}

document.addEventListener("visibilitychange", follow);
follow();
load();
loadSummary();
