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
        const { message, advice } = JSON.parse(call.responseText);
        complain(`${message} ${advice}`);
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
  if (job.error) find("#problem").textContent = `${job.error.message} ${job.error.advice}`;
  find("#cancel").hidden = job.ended;
  find("#delete").hidden = !job.ended;
  find("#progress").hidden = job.state === "done";
  document.body.dataset.state = job.state;
}

async function watchJob(page) {
  for (let failures = 0; ; ) {
    let pause = 1000;
    try {
      const answer = await fetch(page.dataset.status, { headers: { Accept: "application/json" }, cache: "no-store" });
      const said = await answer.json();
      if (answer.ok) {
        failures = 0;
        showStatus(said);
        if (said.state === "done") return showResult(page, await (await fetch(page.dataset.result)).json());
        if (said.ended) return;
        pause = said.state === "running" ? 1000 : 3000;
      } else if (answer.status === 404) {
        [find("#text").textContent, find("#details").textContent] = [said.message, ""];
        find("#cancel").hidden = true;
        return;
      } else throw new Error(said.message);
    } catch (error) {
      // Whatever is away comes back: the job goes on without this page.
      pause = Math.min(10000, 1000 * 2 ** failures++);
      find("#details").textContent = `${error instanceof TypeError ? "The server does not answer." : error.message} Still trying; the job goes on.`;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// ---- Timeline --------------------------------------------------------------------------------------------------------

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
const COLOURS = 8;

function showResult(page, result) {
  find("#result").hidden = false;
  const audio = find("audio"), timeline = find("#timeline"), seconds = result.audio_seconds || 1;
  const stored = `names:${page.dataset.id}`;
  const names = JSON.parse(localStorage.getItem(stored) ?? "{}");
  const nameOf = (label) => names[label] || label;
  const spoken = result.speakers.reduce((sum, { total_seconds }) => sum + total_seconds, 0) || 1;
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  find("#summary").textContent = [
    count(result.speakers.length, "speaker"), count(result.segments.length, "turn"), duration(result.audio_seconds),
    ...result.warnings,
  ].join(" · ");
  const play = (start) => {
    audio.currentTime = start;
    audio.play().catch(() => {}); // a pause or the next click came first; what cannot be played tells by its error event
  };

  const rows = result.speakers.map(({ speaker, total_seconds }, i) => {
    const row = make("div", { className: `row c${i % COLOURS}`, parent: timeline });
    const who = make("div", { className: "who", parent: row });
    const name = make("input", { value: nameOf(speaker), maxLength: 60, spellcheck: false, parent: who });
    name.setAttribute("aria-label", `Name of ${speaker}`);
    name.addEventListener("change", () => rename(speaker, name));
    const percent = (100 * total_seconds) / spoken;
    make("span", { className: "quiet", text: `${duration(total_seconds)} · ${Math.round(percent)} %`, parent: who });
    make("i", { className: "share", parent: who }).style.width = `${percent}%`;
    return { speaker, row, track: make("div", { className: "track", parent: row }) };
  });
  if (!rows.length) return make("p", { text: "Nobody speaks in this recording.", parent: timeline });
  const axis = make("div", { className: "row axis", parent: timeline });
  make("div", { className: "who", parent: axis });
  const ticks = make("div", { className: "track", parent: axis });

  const turns = result.segments.map((turn) => {
    const at = rows.findIndex(({ speaker }) => speaker === turn.speaker), { track } = rows[at];
    const box = make("div", { className: "turn", parent: track });
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

  function showNames() {
    for (const turn of turns) {
      turn.name.textContent = nameOf(turn.speaker);
      turn.box.title = `${nameOf(turn.speaker)}, ${clock(turn.start, 1)} to ${clock(turn.end, 1)}`;
    }
    for (const link of document.querySelectorAll(".downloads a")) link.search = new URLSearchParams(names);
  }
  function rename(label, input) {
    names[label] = input.value.trim();
    if (!names[label] || names[label] === label) delete names[label];
    input.value = nameOf(label);
    localStorage.setItem(stored, JSON.stringify(names));
    showNames();
  }
  showNames();

  timeline.addEventListener("click", ({ target, clientX }) => {
    const turn = turns.find(({ box }) => box === target);
    if (turn) return play(turn.start);
    const track = target.closest(".track");
    if (!track) return;
    const { left, width } = track.getBoundingClientRect();
    play(((clientX - left) / width) * seconds);
  });

  let zoom = 1;
  function drawAxis() {
    const step = STEPS.find((one) => (one / seconds) * ticks.clientWidth > 56) ?? 28800;
    ticks.replaceChildren();
    for (let second = 0; second < seconds; second += step)
      make("span", { text: clock(second), parent: ticks }).style.left = `${(100 * second) / seconds}%`;
  }
  for (const button of document.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => {
      zoom = Math.min(Math.max(zoom * Number(button.dataset.zoom), 1), Math.max(2, 2 ** Math.ceil(Math.log2(seconds / 15))));
      timeline.style.setProperty("--zoom", zoom);
      drawAxis();
      follow();
    });
  function follow() {
    const { width } = ticks.getBoundingClientRect(), names = find(".who", timeline).clientWidth;
    const head = (audio.currentTime / seconds) * width, seen = timeline.clientWidth - (width + names > timeline.clientWidth ? names : 0);
    if (head < timeline.scrollLeft || head > timeline.scrollLeft + seen) timeline.scrollLeft = head - seen / 4;
  }
  new ResizeObserver(() => {
    drawAxis();
    follow();
  }).observe(timeline);

  function showMoment() {
    const now = audio.currentTime;
    timeline.style.setProperty("--at", now / seconds);
    const speaking = new Set();
    for (const turn of turns) {
      const is = turn.start <= now && now < turn.end;
      if (is) speaking.add(turn.at);
      if (is === turn.speaking) continue;
      turn.speaking = is;
      turn.box.classList.toggle("speaking", is);
      turn.item.classList.toggle("speaking", is);
      const list = turn.item.parentElement;
      if (is) list.scrollTop = turn.item.offsetTop - list.offsetTop - list.clientHeight / 3;
    }
    rows.forEach(({ row }, at) => row.classList.toggle("speaking", speaking.has(at)));
    find("#now").textContent = [...speaking].map((at) => nameOf(rows[at].speaker)).join(", ");
    find("#now").className = speaking.size ? `c${Math.min(...speaking) % COLOURS}` : "quiet";
    if (!audio.paused) {
      follow();
      requestAnimationFrame(showMoment);
    }
  }
  for (const event of ["play", "seeked", "timeupdate"]) audio.addEventListener(event, showMoment);
  const complain = () => {
    find("#now").textContent = "The recording was deleted, or this browser cannot play it.";
  };
  audio.addEventListener("error", complain);
  showMoment();
  if (audio.error) complain();
}

if (find("#upload")) watchUpload(find("#upload"));
if (find("#job")) watchJob(find("#job"));
