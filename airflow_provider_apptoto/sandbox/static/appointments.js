"use strict";

// The view of appointments. It uses what inbox.js defines, and like it shows everything by textContent.

const people = byId("appointments");
const person = byId("person");
const appointmentFilters = byId("appointment-filters");
const ANSWERS = [
  ["Confirm", { answer: "confirm" }],
  ["Cancel", { answer: "cancel" }],
  ["Reschedule", { answer: "reschedule" }],
  ["STOP", { answer: "stop" }],
  ["Report as failed", { answer: "fail" }],
];
const MOST = 500; // appointments that are listed

let peopleRows = new Map(); // by the participant's id
let shownPerson = null; // its id
let personParts = null; // what changes while it is shown

const words = (state) => state.replaceAll("_", " ");

// As the clinic's clock shows it: the offset of the event, not that of the browser.
function clock(text) {
  const [day, time] = text.split("T");
  const [year, month, date] = day.split("-").map(Number);
  const label = new Date(year, month - 1, date).toLocaleDateString(undefined, {
    weekday: "long", day: "numeric", month: "long", year: "numeric",
  });
  return { day: label, time: time.slice(0, 5), offset: time.replace(/^[\d:.]+/, "") };
}

const loadPeople = coalesced(async () => {
  const fields = new URLSearchParams({ limit: MOST });
  for (const [name, value] of new FormData(appointmentFilters)) if (value.trim()) fields.set(name, value);
  const answer = await call(`sandbox/appointments?${fields}`);
  const found = await answer.json();
  showPeople(found, Number(answer.headers.get("X-Total-Count")));
  if (shownPerson !== null) await loadPerson();
}, 150);

function showPeople(found, count) {
  const isFiltered = [...new FormData(appointmentFilters).values()].some((value) => value.trim());
  const rest = count > found.length ? `, the first ${found.length} are listed` : "";
  byId("appointment-count").textContent = `${count} appointment${count === 1 ? "" : "s"}${rest}`;
  if (!isFiltered) {
    byId("appointments-total").textContent = count;
    byId("appointments-total").hidden = count === 0;
  }
  byId("no-appointments").hidden = count > 0;
  byId("no-appointments-title").textContent = isFiltered ? "No appointment matches" : "No appointments yet";
  byId("add-appointments").hidden = isFiltered;
  byId("delete-appointments").hidden = count === 0;
  people.hidden = count === 0;
  if (count === 0) showPerson(null);
  person.hidden = count === 0;
  if (count > 0 && shownPerson === null) showNobody();

  const kept = new Map();
  const shown = [];
  let day = null;
  for (const entry of found) {
    const start = clock(entry.start_time);
    if (start.day !== day) {
      day = start.day;
      shown.push(element("li", { className: "day" }, day));
    }
    const row = peopleRows.get(entry.participant_id) ?? newPersonRow(entry.participant_id);
    kept.set(entry.participant_id, row);
    fillPersonRow(row, entry, start);
    shown.push(row.root);
  }
  peopleRows = kept;
  const focused = document.activeElement;
  people.replaceChildren(...shown);
  if (people.contains(focused)) focused.focus({ preventScroll: true });
}

function newPersonRow(id) {
  const parts = Object.fromEntries(
    ["at", "who", "state", "said"].map((name) => [name, element("span", { className: name })]),
  );
  const button = element("button", { type: "button" }, ...Object.values(parts));
  button.addEventListener("click", () => showPerson(id, { isOpened: true }));
  return { root: element("li", {}, button), button, parts };
}

function fillPersonRow(row, entry, start) {
  row.button.setAttribute("aria-pressed", String(entry.participant_id === shownPerson));
  row.parts.at.textContent = start.time;
  row.parts.who.replaceChildren(element("bdi", {}, entry.name || entry.phone || entry.email || "Nobody"));
  row.parts.state.replaceChildren(stateTag(entry.state));
  const sent = `${entry.sent} message${entry.sent === 1 ? "" : "s"}`;
  const failed = entry.failed ? `, ${entry.failed} failed` : "";
  const said = entry.last_reply === null ? entry.title : `“${entry.last_reply}”`;
  row.parts.said.replaceChildren(element("bdi", {}, said), entry.sent ? ` · ${sent}${failed}` : "");
}

function stateTag(state) {
  return element("span", { className: `tag ${state}` }, words(state));
}

// --- one participant

async function showPerson(id, { isOpened = false } = {}) {
  shownPerson = id;
  personParts = null;
  for (const [key, row] of peopleRows) row.button.setAttribute("aria-pressed", String(key === id));
  if (id === null) {
    showNobody();
    return;
  }
  await loadPerson();
  if (isOpened && getComputedStyle(person).position === "fixed") person.querySelector("h2")?.focus();
}

function showNobody() {
  person.classList.add("none");
  person.replaceChildren(element("p", { className: "hint quiet" }, "Choose an appointment to answer for its client."));
}

async function loadPerson() {
  const id = shownPerson;
  let entry;
  try {
    entry = await (await call(`sandbox/participants/${id}`)).json();
  } catch (error) {
    if (id === shownPerson) showPerson(null); // it was deleted meanwhile
    return;
  }
  if (id !== shownPerson) return;
  if (personParts === null) buildPerson(id);
  const start = clock(entry.start_time);
  personParts.name.replaceChildren(element("bdi", {}, entry.name || "Nobody"));
  const optedOut = entry.opted_out.map((channel) => CHANNELS[channel]).join(", ");
  personParts.state.replaceChildren(
    stateTag(entry.state),
    ...(optedOut ? [element("span", { className: "tag opted-out" }, `opted out: ${optedOut}`)] : []),
  );
  const known = {
    Start: `${start.day}, ${start.time} (${start.offset})`,
    Appointment: entry.title,
    Calendar: entry.calendar_name,
    Location: entry.location,
    Phone: entry.phone,
    "E-mail": entry.email,
    "Event id": entry.event_id,
    "Participant id": entry.participant_id,
    "External id": entry.external_id,
  };
  const pairs = Object.entries(known).filter(([, value]) => value !== null && value !== "");
  personParts.facts.replaceChildren(
    ...pairs.flatMap(([name, value]) => [
      element("dt", {}, name),
      element("dd", {}, element("bdi", {}, String(value))),
    ]),
  );
  personParts.talk.replaceChildren(...entry.messages.map(said));
  personParts.silence.hidden = entry.messages.length > 0;
}

function buildPerson(id) {
  const back = element("button", { type: "button", className: "back" }, "Back");
  back.addEventListener("click", () => {
    const row = peopleRows.get(id);
    showPerson(null);
    row?.button.focus();
  });
  const note = element("p", { className: "note refused", role: "alert", hidden: true });
  const buttons = ANSWERS.map(([label, answer]) => {
    const className = answer.answer === "fail" ? "apart" : answer.answer === "stop" ? "danger" : "";
    const button = element("button", { type: "button", className }, label);
    button.addEventListener("click", () => send(id, answer, note));
    return button;
  });
  const text = element("input", {
    name: "reply", placeholder: "Reply as the client", "aria-label": "Reply as the client", autocomplete: "off",
  });
  const form = element("form", { className: "said-form" }, text, element("button", { type: "submit" }, "Reply"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (text.value.trim() && (await send(id, { answer: "reply", text: text.value }, note))) text.value = "";
  });
  personParts = {
    name: element("h2", { tabIndex: -1 }),
    state: element("span", {}),
    facts: element("dl", {}),
    talk: element("ol", { className: "talk", "aria-label": "Conversation" }),
    silence: element("p", { className: "quiet" }, "Nothing was sent yet."),
  };
  person.classList.remove("none");
  person.replaceChildren(
    element("header", {}, back, personParts.name, personParts.state),
    element("div", { className: "answers", role: "group", "aria-label": "Answer as the client" }, ...buttons),
    note,
    form,
    personParts.silence,
    personParts.talk,
    personParts.facts,
  );
  person.scrollTop = 0;
}

async function send(id, answer, note) {
  const options = { method: "POST", body: JSON.stringify(answer) };
  const got = await fetch(`sandbox/participants/${id}/answer`, options);
  note.hidden = got.ok;
  if (!got.ok) note.textContent = (await got.json()).error;
  return got.ok;
}

function said(message) {
  const isReply = message.event_type === "replied";
  const isFailed = message.send_failed || message.delivery_failed;
  const outcome = isFailed ? `, failed: ${message.delivery_error}` : "";
  const who = isReply ? "replied" : "sent";
  return element(
    "li",
    { className: `${isReply ? "replied" : "sent"}${isFailed ? " failed" : ""}` },
    element("div", { className: "bubble", dir: "auto" }, message.content),
    element("div", { className: "when" }, `${CHANNELS[message.channel]}, ${who} ${time(message.at)}${outcome}`),
  );
}

// --- views and buttons

function showView() {
  const isAppointments = location.hash === "#appointments";
  byId("messages-view").hidden = isAppointments;
  byId("appointments-view").hidden = !isAppointments;
  byId("clear").hidden = isAppointments;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.hash === (isAppointments ? "#appointments" : "#messages")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  showTitle();
}

let typingName;
appointmentFilters.addEventListener("submit", (event) => event.preventDefault());
appointmentFilters.addEventListener("input", () => {
  clearTimeout(typingName);
  typingName = setTimeout(loadPeople, 120);
});

byId("add-clinic-day").addEventListener("click", () => call("sandbox/appointments/clinic-day", { method: "POST" }));

byId("delete-appointments").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  if (button.dataset.asked === undefined) {
    say(button, "Delete all appointments?", 4000);
    button.dataset.asked = "";
    return;
  }
  await call("sandbox/appointments", { method: "DELETE" });
  say(button, "Deleted");
  delete button.dataset.asked;
});

people.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const buttons = [...people.querySelectorAll("button")];
  buttons[buttons.indexOf(document.activeElement) + step]?.focus();
});

document.addEventListener("keydown", (event) => {
  if (byId("appointments-view").hidden || event.target.matches("input, select")) return;
  if (event.key === "/") {
    event.preventDefault();
    appointmentFilters.elements.text.focus();
  } else if (event.key === "Escape") {
    person.querySelector(".back")?.click();
  }
});

window.addEventListener("hashchange", showView);
document.addEventListener("appointments", loadPeople);
showView();
loadPeople();
