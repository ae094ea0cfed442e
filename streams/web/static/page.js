"use strict";
// Everything that comes from the API is put in as text, never as markup.
(() => {
  const API = "/performance-monitor/";
  const LIVE_EVERY = 2000, ENDS_EVERY = 5000, PATIENCE = 10000, LIVE_LIMIT = 200, ENDS_LIMIT = 15;
  const byId = (id) => document.getElementById(id);
  const rows = new Map();
  let token = sessionStorage.getItem("token"), skew = 0, endsAt = 0, timer = 0, round = 0;

  class Refused extends Error {}

  async function get(path) {
    const headers = { Accept: "application/json" };
    if (token) headers.Authorization = "Bearer " + token;
    const response = await fetch(API + path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (response.status === 401 || response.status === 403) throw new Refused(String(response.status));
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(body.detail || "The monitor answers " + response.status + ".");
    return body;
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function cell(label, className) {
    const made = element("td", undefined, className);
    made.dataset.label = label;
    const value = element("div");
    made.append(value);
    return [made, value];
  }

  function name(text, post) {
    const head = element("th");
    head.scope = "row";
    const box = element("div");
    box.append(element("bdi", text));
    const small = element("small");
    small.append(element("bdi", post));
    box.append(small);
    head.append(box);
    return head;
  }

  const whole = (count) => (count === null || count === undefined ? "–" : count.toLocaleString("en"));
  const percent = (rate) => (rate === null || rate === undefined ? "–" : (rate * 100).toLocaleString("en", { maximumSignificantDigits: 3 }) + " %");

  function span(milliseconds) {
    const seconds = Math.max(0, Math.round(milliseconds / 1000));
    const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
    if (days) return days + " d " + hours + " h";
    if (hours) return hours + " h " + minutes + " min";
    return minutes ? minutes + ":" + String(seconds % 60).padStart(2, "0") + " min" : seconds + " s";
  }

  function makeRow(session) {
    const row = element("tr");
    const [personaCell, persona] = cell("Persona");
    const [viewsCell, views] = cell("Views", "number");
    const [interactionsCell, interactions] = cell("Interactions", "number");
    const [rateCell, rate] = cell("Rate");
    const [leftCell, left] = cell("Time left", "number");
    persona.append(element("bdi", session.persona_id));
    const text = element("span"), gauge = element("div", undefined, "gauge"), bar = element("i"), line = element("b"), note = element("small");
    gauge.setAttribute("role", "img");
    gauge.append(bar, line);
    rate.append(text, gauge, note);
    row.append(name(session.variant_id, session.post_id), personaCell, viewsCell, interactionsCell, rateCell, leftCell);
    return { row, views, interactions, text, gauge, bar, line, note, left };
  }

  function fillRow(parts, session) {
    const known = session.engagement_rate !== null, below = known && session.engagement_rate < session.kill_rate;
    const judged = session.interaction_count >= session.min_interactions;
    const side = known ? (below ? "below" : "above") : "";
    const scale = Math.max(session.expected_engagement_rate, session.engagement_rate || 0, session.kill_rate * 1.5);
    parts.views.textContent = whole(session.view_count);
    parts.interactions.textContent = whole(session.interaction_count);
    parts.text.textContent = percent(session.engagement_rate);
    parts.text.className = side;
    parts.gauge.className = "gauge " + side;
    parts.gauge.setAttribute("aria-label", percent(session.engagement_rate) + ", kill line at " + percent(session.kill_rate));
    parts.bar.style.width = (100 * Math.min(1, (session.engagement_rate || 0) / scale)).toFixed(1) + "%";
    parts.line.style.left = (100 * Math.min(1, session.kill_rate / scale)).toFixed(1) + "%";
    parts.note.textContent = "line " + percent(session.kill_rate) + ", expected " + percent(session.expected_engagement_rate) + (session.live ? (judged || session.interaction_count === null ? "" : "; judged from " + whole(session.min_interactions) + " interactions on") : "; from the record, its worker cannot be reached");
    parts.deadline = Date.parse(session.deadline);
  }

  function tick() {
    const now = Date.now() + skew;
    for (const parts of rows.values()) parts.left.textContent = parts.deadline > now ? span(parts.deadline - now) : "ending";
  }

  function showLive(page) {
    const seen = new Set(), body = byId("live-table").tBodies[0];
    const fresh = page.items.find((session) => session.live);
    if (fresh) skew = Date.parse(fresh.as_of) - Date.now();
    page.items.forEach((session, index) => {
      seen.add(session.session_id);
      let parts = rows.get(session.session_id);
      if (!parts) rows.set(session.session_id, (parts = makeRow(session)));
      fillRow(parts, session);
      if (body.rows[index] !== parts.row) body.insertBefore(parts.row, body.rows[index] || null);
    });
    for (const [id, parts] of rows) if (!seen.has(id)) { parts.row.remove(); rows.delete(id); }
    tick();
    byId("live-count").textContent = page.items.length ? "(" + page.items.length + (page.next_cursor ? "+" : "") + ")" : "";
    byId("live-table").hidden = !page.items.length;
    byId("live-empty").hidden = Boolean(page.items.length);
    byId("live-more").hidden = !page.next_cursor && page.complete;
    byId("live-more").textContent = page.next_cursor ? "These are the newest " + page.items.length + "; there are more." : "Some workers cannot be reached, so sessions may be missing here.";
    byId("live").hidden = false;
  }

  async function showEnds(mine) {
    const box = byId("ends"), table = byId("ends-table");
    let items = null;
    try {
      const pages = await Promise.all(["killed", "timed_out", "stopped"].map((outcome) => get("sessions?limit=" + ENDS_LIMIT + "&outcome=" + outcome)));
      items = pages.flatMap((page) => page.items).sort((a, b) => Date.parse(b.ended_at) - Date.parse(a.ended_at)).slice(0, ENDS_LIMIT);
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    if (mine !== round) return;
    byId("ends-error").hidden = items !== null;
    byId("ends-empty").hidden = items === null || Boolean(items.length);
    table.hidden = items === null || !items.length;
    box.hidden = false;
    if (items === null) return;
    table.tBodies[0].replaceChildren(...items.map((session) => {
      const row = element("tr");
      const [personaCell, persona] = cell("Persona"), [viewsCell, views] = cell("Views", "number"), [interactionsCell, interactions] = cell("Interactions", "number");
      const [whyCell, why] = cell("Why it ended"), [whenCell, when] = cell("When", "number");
      persona.append(element("bdi", session.persona_id));
      views.textContent = whole(session.final_view_count);
      interactions.textContent = whole(session.final_interaction_count);
      why.append(element("span", session.outcome.replace("_", " "), "tag " + session.outcome), " ", element("span", session.kill_reason || ""));
      if (session.final_engagement_rate !== null) why.append(element("small", "at " + percent(session.final_engagement_rate) + ", line " + percent(session.kill_rate)));
      const ended = new Date(session.ended_at);
      when.textContent = span(Date.now() + skew - ended.getTime()) + " ago";
      when.title = ended.toLocaleString();
      row.append(name(session.variant_id, session.post_id), personaCell, viewsCell, interactionsCell, whyCell, whenCell);
      return row;
    }));
  }

  function say(state, text) {
    const box = byId("state");
    box.dataset.state = state;
    if (box.textContent !== text) box.textContent = text;
  }

  function askForToken() {
    byId("refused").hidden = !token;
    byId("refused").textContent = "That token does not open this monitor.";
    token = null;
    sessionStorage.removeItem("token");
    for (const id of ["live", "ends", "forget"]) byId(id).hidden = true;
    byId("ask").hidden = false;
    byId("token").focus();
    say("asking", "A token is needed");
  }

  async function refresh() {
    const mine = ++round;
    clearTimeout(timer);
    try {
      const page = await get("active?limit=" + LIVE_LIMIT);
      if (mine !== round) return;
      showLive(page);
      byId("ask").hidden = true;
      byId("forget").hidden = !token;
      if (Date.now() - endsAt >= ENDS_EVERY) {
        await showEnds(mine);
        if (mine !== round) return;
        endsAt = Date.now();
      }
      say("fresh", "Up to date");
    } catch (error) {
      if (mine !== round) return;
      if (error instanceof Refused) return askForToken();
      say("error", error.name === "TypeError" || error.name === "TimeoutError" ? "The monitor cannot be reached; trying again" : error.message);
    }
    if (mine === round && !document.hidden) timer = setTimeout(refresh, LIVE_EVERY);
  }

  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    byId("token").value = "";
    if (!/^[\x21-\x7e]+$/.test(token)) return askForToken();
    sessionStorage.setItem("token", token);
    endsAt = 0;
    say("loading", "Loading …");
    refresh();
  });
  byId("forget").addEventListener("click", () => { round++; clearTimeout(timer); token = null; askForToken(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && byId("ask").hidden) refresh(); });
  setInterval(tick, 1000);
  refresh();
})();
