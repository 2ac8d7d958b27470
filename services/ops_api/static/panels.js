// Tables and lists. What was heard is other people's text: it enters the page as text only.

import * as words from "./words.js";

// h("td", {class: "number"}, "12") -> an element; strings become text.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const fill = (id, ...children) => document.getElementById(id).replaceChildren(...children);
export const empty = (text, columns) => (columns ? h("tr", {}, h("td", { colspan: columns, class: "empty" }, text)) : h("div", { class: "empty" }, text));

export function drawFigures(stats, status) {
  const figure = (name, value, note, tone) => h("div", { class: "figure" }, h("span", {}, name), h("b", { class: tone ?? "" }, value), h("small", { title: note }, note));
  const interval = stats.win_rate_interval;
  fill(
    "figures",
    figure(`Equity ${stats.currency}`, words.amount(status.equity ?? stats.equity_end), stats.net_return === null ? "no snapshot yet" : `${stats.net_return >= 0 ? "+" : ""}${words.percent(stats.net_return, 2)} since the start`),
    figure("Net profit, closed", words.signed(stats.net_profit), `after ${words.amount(stats.fees)} of fees`, words.tone(stats.net_profit)),
    figure("Closed trades", String(stats.total_trades), `${status.fills} fills, ${status.orders} orders`),
    figure("Win rate", words.percent(stats.win_rate), interval.low === null ? "no trade yet" : `95 %: ${words.percent(interval.low, 0)} to ${words.percent(interval.high, 0)}`),
    figure("Sharpe, annual", words.ratio(stats.sharpe), `over ${stats.bars.toLocaleString("en-US")} bars of ${stats.timeframe}`),
    figure("Max drawdown", words.percent(stats.max_drawdown, 2), "at the close of a bar"),
    figure("Expectancy", words.inRisk(stats.expectancy_r), `profit factor ${words.ratio(stats.profit_factor)}`),
    figure("Decisions", status.decisions.toLocaleString("en-US"), `${status.outcomes.toLocaleString("en-US")} lessons learned`),
  );
}

export function drawInstruments(instruments, shown, onChoose) {
  fill(
    "instruments",
    ...instruments.map((one) =>
      h(
        "button",
        { class: "tab", role: "tab", "aria-selected": String(one.symbol === shown), title: `${one.regime}${one.probability === null ? "" : ` ${words.percent(one.probability, 0)}`}`, onclick: () => onChoose(one.symbol) },
        h("i", { class: one.regime.toLowerCase() }),
        `${one.symbol} `,
        h("span", { class: "quiet" }, words.price(one.price)),
      ),
    ),
  );
}

// How the chart's instrument is read now; why not, when it is not.
export function drawRegime(one) {
  const pill = document.getElementById("regime");
  pill.textContent = one.probability === null ? one.regime : `${one.regime} ${words.percent(one.probability, 0)}`;
  pill.className = `pill ${one.regime.toLowerCase()}`;
  pill.title = one.note || `by the model ${words.short(one.model_id)}`;
}

// How several instruments are read as one market; nothing where no basket was named.
export function drawBasket(markets) {
  const pill = document.getElementById("basket");
  const [one] = markets;
  pill.hidden = !one;
  if (!one) return;
  const share = one[one.regime.toLowerCase()] ?? null;
  pill.textContent = `basket ${one.regime}${share === null ? "" : ` ${words.percent(share, 0)}`}`;
  pill.className = `pill ${one.regime.toLowerCase()}`;
  pill.title = `${one.members.join(", ")} as one market, ${one.timeframe}`;
}

export function drawSleeves(sleeves, onWhy) {
  const row = (preset) =>
    h(
      "div",
      { class: `preset${preset.is_chosen ? " chosen" : ""}`, title: `${preset.preset_id}, ${preset.origin}, admitted ${words.moment(preset.admitted_at)}`, onclick: () => onWhy(preset.preset_id) },
      h("code", {}, words.short(preset.preset_id)),
      h("div", { class: "bar" }, oddsBar(preset.propensity ?? 0), h("div", { class: "params" }, paramsInWords(preset))),
      h("output", {}, preset.propensity === null ? "new" : words.percent(preset.propensity, 0)),
    );
  const one = (sleeve) =>
    h(
      "div",
      { class: "sleeve" },
      h(
        "div",
        { class: "sleeve-head" },
        h("b", {}, sleeve.symbol),
        h("span", {}, `${sleeve.strategy} ${sleeve.timeframe}${sleeve.epoch === null ? "" : `, epoch ${sleeve.epoch}`}`),
        h("span", { class: "grow" }),
        h("span", { class: words.tone(sleeve.net_profit) }, sleeve.trades ? `${words.signed(sleeve.net_profit)} in ${sleeve.trades}` : "no trade yet"),
      ),
      ...sleeve.presets.map(row),
      sleeve.presets.length ? null : h("span", { class: "quiet" }, "No preset is admitted: this sleeve stays flat."),
    );
  fill("sleeves", ...(sleeves.length ? sleeves.map(one) : [empty("Nothing is admitted yet.")]));
}

// Set by script: the page forbids style attributes.
function oddsBar(odds) {
  const bar = h("div", { class: "odds" });
  bar.style.width = `${100 * odds}%`;
  return bar;
}

const paramsInWords = (preset) => `${preset.origin === "default" ? "default: " : ""}${Object.entries(preset.params).map(([name, value]) => `${name} ${value}`).join(", ")}`;

export function drawRecord(governance, onWhy) {
  const signs = { champion: ["✓", "good"], refused: ["✕", "bad"], demoted: ["↓", "warn"], candidate: ["·", "quiet"] };
  const told = { champion: "promoted", refused: "refused", demoted: "demoted", candidate: "proposed" };
  const line = (change) => {
    const [sign, tone] = signs[change.after];
    const where = [change.symbol, change.strategy].filter(Boolean).join(" ");
    return h(
      "li",
      { onclick: () => onWhy(change.subject_id) },
      h("span", { class: `sign ${tone}` }, sign),
      h("div", {}, `${change.kind === "model" ? "Model" : "Preset"} `, h("code", {}, words.short(change.subject_id)), ` ${told[change.after]}, ${where}`, h("p", {}, change.reasons.join("; "))),
      h("time", {}, words.momentOfDay(change.changed_at)),
    );
  };
  fill("record", ...(governance.record.length ? governance.record.map(line) : [h("li", { class: "empty" }, "The gate has not judged anything yet.")]));
  document.getElementById("record-note").textContent =
    `models ${governance.models_promoted} : ${governance.models_refused}, presets ${governance.presets_promoted} : ${governance.presets_refused}`;
}

export function drawTrades(trades, onWhy) {
  const row = (trade) =>
    h(
      "tr",
      { tabindex: 0, onclick: () => onWhy(trade.trade_id), onkeydown: (event) => event.key === "Enter" && onWhy(trade.trade_id) },
      h("td", { class: "time" }, words.momentOfDay(trade.closed_at)),
      h("td", { title: trade.strategy }, trade.symbol),
      h("td", { class: "quiet" }, trade.side),
      h("td", { class: "number" }, words.price(trade.entry_price)),
      h("td", { class: "number" }, words.price(trade.exit_price)),
      h("td", { class: "number quiet" }, String(trade.bars_held)),
      h("td", { class: "quiet" }, trade.exit_reason.replaceAll("_", " ")),
      h("td", { class: "quiet" }, h("span", { class: `dot ${trade.regime}` }), trade.regime.toLowerCase()),
      h("td", {}, h("code", { class: "quiet" }, words.short(trade.preset_id))),
      h("td", { class: `number ${words.tone(trade.pnl)}` }, words.signed(trade.pnl)),
      h("td", { class: `number ${words.tone(trade.result_r)}` }, words.inRisk(trade.result_r)),
    );
  fill("trades", ...(trades.length ? trades.map(row) : [empty("No trade has closed yet.", 11)]));
}

export function drawPositions(portfolio) {
  const row = (one) =>
    h(
      "tr",
      {},
      h("td", { title: `${one.strategy} ${one.timeframe}, preset ${one.preset_id}` }, one.symbol, h("span", { class: "quiet" }, ` ${one.strategy}`)),
      h("td", { class: "number" }, words.quantity(one.quantity)),
      h("td", { class: "number" }, words.price(one.entry_price)),
      h("td", { class: "number" }, words.price(one.mark_price)),
      h("td", { class: `number ${words.tone(one.unrealized)}` }, words.signed(one.unrealized)),
    );
  const positions = portfolio ? portfolio.positions : [];
  fill("positions", ...(positions.length ? positions.map(row) : [empty(portfolio ? "Flat." : "No snapshot of the account yet.", 5)]));
}

export function drawServices(services) {
  const told = (one) => {
    if (one.health === "unheard") return "not heard of";
    if (one.health === "silent") return "silent";
    if (one.health === "waiting") return `waits for ${one.waiting_for.join(", ")}`;
    if (one.holding) return one.holding;
    return one.lag_bars === null ? "" : one.lag_bars === 0 ? "0" : String(one.lag_bars);
  };
  const title = (one) => [one.version, one.restarts ? `restarted ${one.restarts} times` : "", one.holding].filter(Boolean).join(", ");
  fill("services", ...services.map((one) => h("li", { class: one.health, title: title(one) }, one.service, h("span", {}, told(one)))));
}

export function drawWhy(found) {
  document.getElementById("why-title").textContent = found.summary;
  fill("why-steps", ...found.steps.map((step) => h("li", {}, h("time", {}, words.moment(step.at)), step.text)));
  document.getElementById("why-causes").textContent = found.causes.length > 1 ? `Caused by: ${found.causes.slice(1).map((one) => one.id).join(" ← ")}` : "";
  document.getElementById("why").showModal();
}
