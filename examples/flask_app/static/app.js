"use strict";
// The upload's progress, the job's progress, and its timeline. Text from outside is set as text, never as HTML.

const find = (selector, root = document) => root.querySelector(selector);

function make(tag, { text, parent, ...properties } = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function clock(seconds, decimals = 0) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  const text = shown.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
  return decimals ? `${text}.${Math.floor((seconds % 1) * 10)}` : text;
}

const duration = (seconds) =>
  seconds < 59.95 ? `${seconds.toFixed(1)} s` : `${clock(seconds)} ${seconds < 3600 ? "min" : "h"}`;

const said = ({ message, advice }) => `${message.replace(/\.?$/, ".")} ${advice}`;

// ---- Upload ----------------------------------------------------------------------------------------------------------

function watchUpload(form) {
  const input = find("[type=file]", form), problem = find(".problem", form), sending = find(".sending", form);
  const complain = (text) => {
    problem.textContent = text;
    problem.hidden = false;
    sending.hidden = true;
    find("button", form).disabled = false;
  };
  input.addEventListener("change", () => {
    find("strong", form).textContent = input.files[0]?.name ?? "Choose a recording, or drop it here";
    problem.hidden = true;
  });
  for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    find(".drop", form).addEventListener(event, () => find(".drop", form).classList.toggle("over", over));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = input.files[0], most = Number(form.dataset.maxBytes);
    // A server that refuses a file while it is being sent cuts the connection, and the browser shows no reason.
    if (file.size > most) return complain(`This file has more than ${most / 1e6} MB.`);
    const call = new XMLHttpRequest(); // fetch() says nothing of an upload's progress
    call.upload.onprogress = ({ loaded, total }) => {
      find("progress", sending).value = loaded / total;
      find("span", sending).textContent = `${Math.round((100 * loaded) / total)} %`;
    };
    call.onload = () => {
      if (call.status < 400) return location.assign(call.responseURL);
      try {
        complain(said(JSON.parse(call.responseText)));
      } catch {
        complain(`The server answers with an error (${call.status}).`);
      }
    };
    call.onerror = () => complain("The connection broke off. Try again.");
    call.open("POST", form.action);
    call.setRequestHeader("Accept", "application/json");
    call.send(new FormData(form));
    [problem.hidden, sending.hidden, find("button", form).disabled] = [true, false, true];
  });
}

// ---- Progress --------------------------------------------------------------------------------------------------------

const STAGES = {
  download: "Fetch", decode: "Decode", segmentation: "Find speech", embedding: "Compare voices", clustering: "Tell apart",
};
const STATES = {
  queued: "Waits for its turn", due: "Waits to be tried again", running: "Begins", done: "Done",
  dead: "This did not work", cancelled: "Cancelled", expired: "Expired before its turn",
};

function about(seconds) {
  return seconds < 90 ? `${Math.max(5, Math.round(seconds / 5) * 5)} s` : `${Math.round(seconds / 60)} min`;
}

function showStatus(job) {
  let text = STATES[job.state];
  const details = [];
  if (job.state === "running" && job.stage)
    text = `${STAGES[job.stage] ?? job.stage}${job.percent ? `, ${Math.round(job.percent)} %` : " …"}`;
  if (job.state === "queued" && job.place) text = job.place === 1 ? "Next in line" : `Number ${job.place} in line`;
  if (job.state === "queued" && job.seconds_left === null)
    details.push("no worker takes jobs at the moment; this one keeps its place");
  if (!job.ended && job.attempts > (job.state === "running" ? 1 : 0))
    details.push(job.error ? "another try" : "its worker was lost, so it starts anew");
  if (job.seconds_left !== null) details.push(`about ${about(job.seconds_left)} left`);
  find("#text").textContent = text;
  find("#details").textContent = details.join(" · ");
  const stages = Object.keys(STAGES), now = stages.indexOf(job.stage);
  for (const [i, stage] of stages.entries()) {
    const percent = job.state !== "running" ? 0 : i < now ? 100 : i === now ? job.percent : 0;
    const item = find(`[data-stage=${stage}]`);
    find("progress", item).value = percent;
    item.classList.toggle("now", job.state === "running" && i === now);
    find("span", item).textContent = STAGES[stage];
  }
  find(".stages").hidden = job.ended;
  find("#problem").hidden = !job.error;
  if (job.error) find("#problem").textContent = said(job.error);
  find("#cancel").hidden = job.ended;
  find("#delete").hidden = !job.ended;
  find("#progress").hidden = job.state === "done";
  document.body.dataset.state = job.state;
}

async function ask(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" }, cache: "no-store" });
  const told = await answer.json();
  if (answer.ok || answer.status === 404) return { known: answer.ok, told };
  throw new Error(told.message);
}

async function watchJob({ dataset }) {
  for (let failures = 0; ; ) {
    let pause = 1000, result = null;
    try {
      const { known, told } = await ask(dataset.status);
      if (!known) {
        [find("#text").textContent, find("#details").textContent] = [told.message, ""];
        find("#cancel").hidden = true;
        return;
      }
      if (told.state === "done") result = (await ask(dataset.result)).told;
      showStatus(told);
      if (told.ended && !result) return;
      pause = told.state === "running" ? 1000 : 3000;
      failures = 0;
    } catch (error) {
      // Whatever is away comes back. Errors of our own making have the server's words; all others mean that it has none.
      pause = Math.min(10000, 1000 * 2 ** failures++);
      const why = error.constructor === Error ? error.message : "The server does not answer.";
      find("#details").textContent = `${why} Still trying; the job goes on.`;
    }
    if (result) return showResult(result, `names:${dataset.id}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// ---- Timeline --------------------------------------------------------------------------------------------------------

const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];
const COLOURS = 8;

function showResult(result, storedNames) {
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  find("#result").hidden = false;
  find("#summary").textContent = [
    count(result.speakers.length, "speaker"), count(result.segments.length, "turn"), duration(result.audio_seconds),
    ...result.warnings,
  ].join(" · ");
  const timeline = find("#timeline"), audio = find("audio"), seconds = result.audio_seconds;
  if (!result.speakers.length) return make("p", { text: "Nobody speaks in this recording.", parent: timeline });

  const play = (start) => {
    audio.currentTime = start;
    audio.play().catch(() => {}); // a pause or the next click came first; what cannot be played tells by its error event
  };
  const rows = drawRows(timeline, result.speakers);
  const turns = drawTurns(rows, result.segments, seconds, play);
  const showNames = nameSpeakers(rows, turns, storedNames);
  timeline.addEventListener("click", ({ target, clientX }) => {
    const turn = turns.find(({ box }) => box === target), track = target.closest(".track");
    if (turn) return play(turn.start);
    if (!track) return;
    const { left, width } = track.getBoundingClientRect();
    play(((clientX - left) / width) * seconds);
  });
  followPlayer(audio, rows, turns, seconds, makeZoomable(timeline, audio, seconds));
  showNames();
}

function drawRows(timeline, speakers) {
  const spoken = speakers.reduce((sum, { total_seconds }) => sum + total_seconds, 0) || 1;
  return speakers.map(({ speaker, total_seconds }, i) => {
    const row = make("div", { className: `row c${i % COLOURS}`, parent: timeline });
    const who = make("div", { className: "who", parent: row });
    const name = make("input", { value: speaker, maxLength: 60, spellcheck: false, parent: who });
    name.setAttribute("aria-label", `Name of ${speaker}`);
    const percent = (100 * total_seconds) / spoken;
    make("span", { className: "quiet", text: `${duration(total_seconds)} · ${Math.round(percent)} %`, parent: who });
    make("i", { className: "share", parent: who }).style.width = `${percent}%`;
    return { speaker, row, name, track: make("div", { className: "track", parent: row }) };
  });
}

function drawTurns(rows, segments, seconds, play) {
  return segments.map((turn) => {
    const at = rows.findIndex(({ speaker }) => speaker === turn.speaker);
    const box = make("div", { className: "turn", parent: rows[at].track });
    box.style.left = `${(100 * turn.start) / seconds}%`;
    box.style.width = `${(100 * (turn.end - turn.start)) / seconds}%`;
    const item = make("li", { className: `c${at % COLOURS}`, parent: find("#turns") });
    const button = make("button", { type: "button", parent: item });
    make("time", { text: clock(turn.start, 1), parent: button });
    const name = make("span", { className: "name", parent: button });
    make("span", { className: "quiet", text: duration(turn.end - turn.start), parent: button });
    button.addEventListener("click", () => play(turn.start));
    return { ...turn, at, box, item, name, speaking: false };
  });
}

/** Lets names be typed in; they stay in this browser, and go along with each download. */
function nameSpeakers(rows, turns, storedNames) {
  const names = JSON.parse(localStorage.getItem(storedNames) ?? "{}");
  const show = () => {
    for (const row of rows) row.name.value = names[row.speaker] || row.speaker;
    for (const turn of turns) {
      turn.name.textContent = rows[turn.at].name.value;
      turn.box.title = `${turn.name.textContent}, ${clock(turn.start, 1)} to ${clock(turn.end, 1)}`;
    }
    for (const link of document.querySelectorAll(".downloads a")) link.search = new URLSearchParams(names);
  };
  for (const { speaker, name } of rows)
    name.addEventListener("change", () => {
      names[speaker] = name.value.trim();
      if (!names[speaker]) delete names[speaker];
      localStorage.setItem(storedNames, JSON.stringify(names));
      show();
    });
  return show;
}

/** Draws the time axis; gives what keeps the playhead in sight. */
function makeZoomable(timeline, audio, seconds) {
  const axis = make("div", { className: "row axis", parent: timeline });
  make("div", { className: "who", parent: axis });
  const ticks = make("div", { className: "track", parent: axis });
  const most = Math.max(2, 2 ** Math.ceil(Math.log2(seconds / 15)));
  let zoom = 1;
  const follow = () => {
    // Names stand beside the tracks, or above them on a narrow screen.
    const names = ticks.getBoundingClientRect().left - axis.getBoundingClientRect().left;
    const beside = timeline.clientWidth - names;
    const head = (audio.currentTime / seconds) * ticks.clientWidth;
    if (head < timeline.scrollLeft || head > timeline.scrollLeft + beside) timeline.scrollLeft = head - beside / 4;
  };
  const draw = () => {
    timeline.style.setProperty("--zoom", zoom);
    const step = TICKS.find((one) => (one / seconds) * ticks.clientWidth > 56) ?? TICKS.at(-1);
    ticks.replaceChildren();
    for (let second = 0; second < seconds; second += step)
      make("span", { text: clock(second), parent: ticks }).style.left = `${(100 * second) / seconds}%`;
    follow();
  };
  for (const button of document.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => {
      zoom = Math.min(Math.max(zoom * Number(button.dataset.zoom), 1), most);
      draw();
    });
  new ResizeObserver(draw).observe(timeline);
  return follow;
}

/** Moves the playhead, and marks whoever speaks. */
function followPlayer(audio, rows, turns, seconds, follow) {
  const mark = (turn, speaking) => {
    turn.speaking = speaking;
    turn.box.classList.toggle("speaking", speaking);
    turn.item.classList.toggle("speaking", speaking);
    const list = turn.item.parentElement;
    if (speaking) list.scrollTop = turn.item.offsetTop - list.offsetTop - list.clientHeight / 3;
  };
  const show = () => {
    const now = audio.currentTime, speaking = new Set();
    find("#timeline").style.setProperty("--at", now / seconds);
    for (const turn of turns) {
      const is = turn.start <= now && now < turn.end;
      if (is) speaking.add(turn.at);
      if (is !== turn.speaking) mark(turn, is);
    }
    rows.forEach(({ row }, at) => row.classList.toggle("speaking", speaking.has(at)));
    find("#now").textContent = [...speaking].map((at) => rows[at].name.value).join(", ");
    find("#now").className = speaking.size ? `c${Math.min(...speaking) % COLOURS}` : "quiet";
    if (audio.paused) return;
    follow();
    requestAnimationFrame(show);
  };
  const complain = () => {
    find("#now").textContent = "The recording was deleted, or this browser cannot play it.";
  };
  for (const event of ["play", "seeked", "timeupdate"]) audio.addEventListener(event, show);
  audio.addEventListener("error", complain);
  show();
  if (audio.error) complain();
}

if (find("#upload")) watchUpload(find("#upload"));
if (find("#job")) watchJob(find("#job"));
