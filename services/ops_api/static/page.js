// The page: one stream says what has changed, each part fetches itself when it must, and draws.

import { command, get, getOrNull, stream } from "./api.js";
import { EquityChart, PriceChart } from "./charts.js";
import { drawBasket, drawFigures, drawInstruments, drawPositions, drawRecord, drawRegime, drawServices, drawSleeves, drawTrades, drawWhy } from "./panels.js";
import { Part } from "./parts.js";
import { drawModels, drawTransitions } from "./regimes.js";
import { moment } from "./words.js";

const BARS = 240;
const LENGTHS = { m: 60_000, h: 3_600_000, d: 86_400_000 };
const at = (id) => document.getElementById(id);

let status = null;
let shown = null; // the instrument on the chart
let portfolio = null;

dressAs(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
const priceChart = new PriceChart(at("price-chart"));
const equityChart = new EquityChart(at("equity-chart"));

const parts = {
  price: new Part(500, async () => {
    if (!shown) return;
    const one = shown;
    const bars = await get(`/bars/${one.symbol}?timeframe=${one.timeframe}&limit=${BARS}`);
    const history = await get(`/regime/${one.symbol}/history?timeframe=${one.timeframe}&limit=${BARS}`);
    const since = bars.opened_ms.length ? new Date(bars.opened_ms[0]).toISOString() : "";
    const { trades } = await get(`/trades?symbol=${one.symbol}&timeframe=${one.timeframe}&limit=200&from=${encodeURIComponent(since)}`);
    const held = (portfolio?.positions ?? []).filter((position) => position.symbol === one.symbol);
    priceChart.draw(bars, history, trades, held, lengthOf(one.timeframe));
  }),
  equity: new Part(1000, async () => {
    equityChart.draw(await get("/equity?points=600"));
  }),
  positions: new Part(500, async () => {
    portfolio = await getOrNull("/positions");
    drawPositions(portfolio);
  }),
  figures: new Part(500, async () => drawFigures(await get("/trades/stats"), status)),
  sleeves: new Part(1000, async () => drawSleeves((await get("/presets")).sleeves, why)),
  record: new Part(1000, async () => drawRecord(await get("/governance?limit=60"), why)),
  transitions: new Part(3000, async () => {
    if (shown) drawTransitions(await get(`/regime/${shown.symbol}/transitions?timeframe=${shown.timeframe}`));
  }),
  models: new Part(1000, async () => {
    if (shown) drawModels((await get(`/models?symbol=${shown.symbol}&timeframe=${shown.timeframe}&limit=30`)).models, why);
  }),
  trades: new Part(1000, async () => drawTrades((await get("/trades?limit=60")).trades, why)),
};

function onPulse({ versions, status: now }) {
  status = now;
  if (document.hidden) return;
  const of = (...names) => names.map((name) => versions[name] ?? 0).join(".");
  shown ??= now.instruments[0] ?? null;
  drawHead(now);
  drawInstruments(now.instruments, shown?.symbol, show);
  drawBasket(now.markets);
  drawServices(now.services);
  if (shown) {
    const heard = `bars.${shown.symbol}.${shown.timeframe}`;
    drawRegime(now.instruments.find((one) => one.symbol === shown.symbol && one.timeframe === shown.timeframe));
    parts.price.want(of(heard, "trades") + shown.symbol);
    parts.transitions.want(of(heard) + shown.symbol);
    parts.models.want(of("governance") + shown.symbol);
  }
  parts.equity.want(of("equity"));
  parts.positions.want(of("equity"));
  parts.figures.want(of("equity", "trades", "orders", "presets"));
  parts.sleeves.want(of("presets", "trades"));
  parts.record.want(of("governance"));
  parts.trades.want(of("trades"));
  drawNotice(now);
}

function drawHead(now) {
  at("state").textContent = now.state;
  at("state").className = `pill ${now.state}`;
  at("state").title = now.state_reason || "Whether new positions are opened";
  at("mode").textContent = now.mode;
  at("mode").className = `pill ${now.mode === "live" ? "live" : "quiet"}`;
  at("venue-time").textContent = `${moment(now.venue_time)} UTC`;
  at("equity-note").textContent = now.account;
}

function drawNotice(now) {
  const cold = now.instruments.filter((one) => !one.model_id).map((one) => one.symbol);
  const failed = Object.values(parts).find((part) => part.failure);
  const lines = [];
  if (now.instruments.length === 0) lines.push("Waiting for the first bar.");
  if (cold.length) lines.push(`${cold.join(", ")}: no model yet, so default presets trade and strategies that need a regime stay flat.`);
  for (const one of now.instruments) if (one.model_id && one.note) lines.push(`${one.symbol}: regime unknown. ${one.note}`);
  if (now.state === "halted") lines.push(`Halted: ${now.state_reason}. A person must resume.`);
  if (now.state === "paused") lines.push(`Paused: ${now.state_reason}.${now.state_until ? ` Until ${moment(now.state_until)}.` : ""}`);
  if (failed) lines.push(`Could not read a part of the page: ${failed.failure}`);
  at("notice").textContent = lines.join(" ");
  at("notice").hidden = lines.length === 0;
}

function show(symbol) {
  shown = status.instruments.find((one) => one.symbol === symbol);
  drawInstruments(status.instruments, symbol, show);
  drawRegime(shown);
  for (const part of [parts.price, parts.transitions, parts.models]) part.again();
}

async function why(id) {
  try {
    drawWhy(await get(`/explain/${encodeURIComponent(id)}`));
  } catch (error) {
    toast(error.message);
  }
}

async function send(button) {
  const { verb, confirm: question } = button.dataset;
  if (question && !(await agreed(question, button.textContent))) return;
  button.disabled = true;
  try {
    const answer = await command(verb, `page-${verb}-${Date.now()}`);
    toast(`${button.textContent}: ${answer.detail || (answer.done ? "done" : "refused")}`);
  } catch (error) {
    toast(`${button.textContent}: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

function agreed(question, verb) {
  const dialog = at("confirm");
  at("confirm-text").textContent = question;
  at("confirm-yes").textContent = verb;
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function toast(text) {
  at("toast").textContent = text;
  at("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { at("toast").hidden = true; }, 6000);
}

function dressAs(theme) {
  document.documentElement.dataset.theme = theme;
}

const lengthOf = (timeframe) => Number.parseInt(timeframe, 10) * LENGTHS[timeframe.at(-1)];

at("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  dressAs(theme);
  priceChart.dress();
  equityChart.dress();
  parts.price.again();
});

const buttons = [...at("commands").querySelectorAll("button")];
for (const button of buttons) {
  button.disabled = true;
  button.addEventListener("click", () => send(button));
}
const { may_command: mayCommand } = await get("/session");
for (const button of buttons) {
  button.disabled = !mayCommand;
  button.title = mayCommand ? "" : "To command, open the link with a login that `trimtab up` printed.";
}

stream(onPulse, (isOn) => {
  at("link").textContent = isOn ? "live" : "connection lost, trying again";
  at("link").classList.toggle("on", isOn);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) for (const part of Object.values(parts)) part.again(); });
