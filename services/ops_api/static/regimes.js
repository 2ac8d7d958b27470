// How regimes follow one another and how long they last, and the versions of the model that reads them.

import { empty, fill, h } from "./panels.js";
import * as words from "./words.js";

const low = (name) => name.toLowerCase();
const bars = (value) => (value === null ? words.UNKNOWN : value.toFixed(1));

export function drawTransitions(told) {
  fill("transitions", table(told.names, told.model, "by the model", told.unknown), table(told.names, told.empirical, "as it was", "no two bars were read by one model yet"));
  fill("dwell", ...told.names.map((name, k) => dwellRow(name, told.dwell[name], told.dwell_expected[k], told.dwell_from)));
  const pairs = told.counts.flat().reduce((sum, n) => sum + n, 0);
  document.getElementById("transitions-note").textContent = `from one bar to the next, ${pairs.toLocaleString("en-US")} seen`;
}

// `odds`: rows by the regime of a bar, columns by that of the next one; null where nothing is known.
function table(names, odds, title, unknown) {
  const head = h("tr", {}, h("th", {}), ...names.map((name) => h("th", { class: "number", title: `to ${name}` }, h("span", { class: `dot ${name}` }), low(name))));
  const cell = (share, before, after) => {
    const made = h("td", { class: `number odds ${low(after)}`, title: `from ${before} to ${after}` }, share === null ? words.UNKNOWN : words.percent(share));
    made.style.setProperty("--share", `${60 * (share ?? 0)}%`); // set by script: the page forbids style attributes
    return made;
  };
  const row = (before, i) => h("tr", {}, h("th", { title: `from ${before}` }, h("span", { class: `dot ${before}` }), low(before)), ...names.map((after, j) => cell(odds[i]?.[j] ?? null, before, after)));
  const known = odds !== null && odds.some((one) => one !== null);
  return h("div", {}, h("h3", {}, title), known ? h("table", {}, h("thead", {}, head), h("tbody", {}, ...names.map(row))) : h("p", { class: "empty" }, `Not known: ${unknown}.`));
}

function dwellRow(name, dwell, expected, from) {
  const most = Math.max(1, ...dwell.histogram);
  const column = (spells, k) => {
    const until = from[k + 1] === undefined ? "and more" : from[k + 1] - 1 === from[k] ? "" : `to ${from[k + 1] - 1}`;
    const made = h("i", { class: low(name), title: `${spells} of ${from[k]} ${until} bars`.replace("  ", " ") });
    made.style.height = `${(100 * spells) / most}%`;
    return made;
  };
  return h(
    "tr",
    {},
    h("td", {}, h("span", { class: `dot ${name}` }), low(name)),
    h("td", { class: "number" }, bars(dwell.mean_bars)),
    h("td", { class: "number quiet" }, bars(expected)),
    h("td", { class: "number quiet" }, String(dwell.spells)),
    h("td", {}, h("div", { class: "histogram" }, ...dwell.histogram.map(column))),
  );
}

export function drawModels(models, onWhy) {
  const score = (model, name, digits) => (model.scores[name] ?? null) === null ? words.UNKNOWN : model.scores[name].toFixed(digits);
  const row = (model) => {
    const [verdict, tone] = verdictOn(model);
    const why = model.unreadable || model.reasons.join("; ");
    return h(
      "tr",
      { tabindex: 0, class: model.is_in_use ? "chosen" : "", onclick: () => onWhy(model.model_id), onkeydown: (event) => event.key === "Enter" && onWhy(model.model_id) },
      h("td", { title: model.model_id }, h("code", {}, words.short(model.model_id))),
      h("td", { class: "time" }, model.trained_at ? words.momentOfDay(model.trained_at) : words.UNKNOWN),
      h("td", { class: "quiet" }, model.is_synthetic ? "made-up bars" : model.how || words.UNKNOWN),
      h("td", { class: "number quiet" }, model.states || words.UNKNOWN),
      h("td", { class: "number", title: `one Gaussian: ${score(model, "log_likelihood_one_gaussian", 3)}` }, score(model, "log_likelihood", 3)),
      h("td", { class: "number" }, words.percent(model.scores.agreement ?? null, 0)),
      h("td", { class: "number quiet" }, score(model, "temperature", 2)),
      h("td", { class: tone }, verdict),
      h("td", { class: "time" }, model.judged_at ? words.momentOfDay(model.judged_at) : words.UNKNOWN),
      h("td", { class: "quiet reasons", title: why }, why),
    );
  };
  fill("models", ...(models.length ? models.map(row) : [empty("No model was trained yet: the regime is UNKNOWN.", 10)]));
}

function verdictOn(model) {
  if (model.is_in_use) return [model.drifted_at ? "in use, drifted" : "in use", model.drifted_at ? "warn" : "good"];
  if (model.demoted_at) return ["demoted", "warn"]; // and the regime was UNKNOWN; one that made room for another is no failure
  return { champion: ["replaced", "quiet"], demoted: ["replaced", "quiet"], refused: ["refused", "bad"], candidate: ["waits for the gate", "quiet"] }[model.stage];
}
