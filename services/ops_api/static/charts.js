// The two charts: price with trades and what was read of it (ribbon, odds, drift), and the account's equity.

import { AreaSeries, CandlestickSeries, ColorType, HistogramSeries, LineSeries, LineStyle, LineType, createChart, createSeriesMarkers, createTextWatermark } from "./vendor/lightweight-charts.js";
import { OddsSeries } from "./odds.js";
import { inRisk } from "./words.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const fade = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

function dress(chart) {
  chart.applyOptions({
    layout: { background: { type: ColorType.Solid, color: "transparent" }, textColor: colour("quiet"), fontSize: 11, attributionLogo: false, panes: { separatorColor: colour("line"), separatorHoverColor: colour("raised") } },
    grid: { vertLines: { color: fade(colour("line"), 0.45) }, horzLines: { color: fade(colour("line"), 0.45) } },
    rightPriceScale: { borderColor: colour("line") },
    timeScale: { borderColor: colour("line"), timeVisible: true, secondsVisible: false, rightOffset: 4 },
    crosshair: { vertLine: { labelBackgroundColor: colour("chop") }, horzLine: { labelBackgroundColor: colour("chop") } },
  });
}

const made = (element) => createChart(element, { autoSize: true, layout: { attributionLogo: false } });

export class PriceChart {
  #lines = [];
  #fitted = "";

  constructor(element) {
    this.chart = made(element);
    this.candles = this.chart.addSeries(CandlestickSeries, { priceLineVisible: false });
    this.ribbon = this.chart.addSeries(HistogramSeries, { priceScaleId: "ribbon", priceLineVisible: false, lastValueVisible: false });
    this.markers = createSeriesMarkers(this.candles, []);
    this.chart.priceScale("right").applyOptions({ scaleMargins: { top: 0.06, bottom: 0.09 } });
    this.chart.priceScale("ribbon").applyOptions({ scaleMargins: { top: 0.965, bottom: 0 }, visible: false });
    this.odds = this.chart.addCustomSeries(new OddsSeries(), { priceLineVisible: false, lastValueVisible: false }, 1);
    this.drift = this.chart.addSeries(LineSeries, { lineWidth: 2, priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false }, 2);
    this.promised = this.chart.addSeries(LineSeries, { lineWidth: 1, lineStyle: LineStyle.Dashed, lineType: LineType.WithSteps, priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false }, 2);
    const [price, odds, drift] = this.chart.panes();
    price.setStretchFactor(6);
    odds.setStretchFactor(1.8);
    drift.setStretchFactor(1.8);
    for (const pane of [odds, drift]) pane.priceScale("right").applyOptions({ scaleMargins: { top: 0.24, bottom: 0.04 } }); // room for its label
    this.labels = [
      [createTextWatermark(odds, {}), "odds of each regime"],
      [createTextWatermark(drift, {}), "how well the model foretold 48 bars: log-likelihood of a bar; dashed: what it promised"],
    ];
    this.dress();
  }

  dress() {
    dress(this.chart);
    const [up, down] = [colour("bull"), colour("bear")];
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: fade(up, 0.8), wickDownColor: fade(down, 0.8), borderVisible: false });
    this.odds.applyOptions({ bull: up, bear: down, chop: colour("chop"), unknown: colour("unknown") });
    this.drift.applyOptions({ color: colour("accent") });
    this.promised.applyOptions({ color: colour("quiet") });
    for (const [label, text] of this.labels) label.applyOptions({ horzAlign: "left", vertAlign: "top", lines: [{ text, color: colour("quiet"), fontSize: 11, fontFamily: getComputedStyle(document.body).fontFamily }] });
  }

  draw(bars, history, trades, positions, lengthMs) {
    const series = `${bars.symbol}.${bars.timeframe}`;
    const last = bars.close.at(-1) ?? 1;
    const digits = Math.max(2, Math.min(8, 4 - Math.floor(Math.log10(last))));
    this.candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    const tints = { BULL: colour("bull"), BEAR: colour("bear"), CHOP: colour("chop") };
    const unknown = colour("unknown");
    const at = bars.opened_ms.map((ms) => ms / 1000);
    this.candles.setData(at.map((time, i) => ({ time, open: bars.open[i], high: bars.high[i], low: bars.low[i], close: bars.close[i] })));
    this.ribbon.setData(at.map((time, i) => ({ time, value: 1, color: tints[bars.regime[i]] ?? unknown })));
    const read = new Map(history.opened_ms.map((ms, i) => [ms, i]));
    const readings = bars.opened_ms.map((ms, i) => [at[i], read.get(ms)]);
    this.odds.setData(readings.map(([time, i]) => ({ time, bull: history.bull[i] ?? null, chop: history.chop[i] ?? null, bear: history.bear[i] ?? null })));
    this.drift.setData(readings.map(([time, i]) => point(time, history.drift[i])));
    this.promised.setData(readings.map(([time, i]) => point(time, history.promised[i])));
    this.markers.setMarkers(markersOf(trades, bars.opened_ms[0] ?? 0, bars.opened_ms.at(-1) ?? 0, lengthMs));
    for (const line of this.#lines) this.candles.removePriceLine(line);
    this.#lines = positions.map((one) =>
      this.candles.createPriceLine({ price: Number(one.entry_price), color: colour("accent"), lineWidth: 1, lineStyle: LineStyle.Dashed, title: Number(one.quantity) > 0 ? "long" : "short" }),
    );
    if (at.length && this.#fitted !== series) {
      this.chart.timeScale().fitContent(); // once: afterwards the view is the reader's
      this.#fitted = series;
    }
  }
}

const point = (time, value) => (value === null || value === undefined ? { time } : { time, value });

function markersOf(trades, firstMs, lastMs, lengthMs) {
  const markers = [];
  const put = (iso, mark) => {
    const ms = Math.floor(Date.parse(iso) / lengthMs) * lengthMs;
    if (ms >= firstMs && ms <= lastMs) markers.push({ time: ms / 1000, ...mark });
  };
  for (const trade of trades) {
    const long = trade.side === "long";
    const won = Number(trade.pnl) > 0;
    put(trade.opened_at, { position: long ? "belowBar" : "aboveBar", shape: long ? "arrowUp" : "arrowDown", color: colour("accent"), size: 1 });
    put(trade.closed_at, { position: long ? "aboveBar" : "belowBar", shape: "circle", color: colour(won ? "good" : "bad"), size: 0.6, text: inRisk(trade.result_r) });
  }
  return markers.sort((a, b) => a.time - b.time);
}

export class EquityChart {
  constructor(element) {
    this.chart = made(element);
    this.curve = this.chart.addSeries(AreaSeries, { lineWidth: 2, priceLineVisible: false, priceFormat: { type: "price", precision: 2, minMove: 0.01 } });
    this.chart.priceScale("right").applyOptions({ scaleMargins: { top: 0.12, bottom: 0.06 } });
    this.chart.timeScale().applyOptions({ rightOffset: 1 });
    this.dress();
  }

  dress() {
    dress(this.chart);
    const tint = colour("accent");
    this.curve.applyOptions({ lineColor: tint, topColor: fade(tint, 0.3), bottomColor: fade(tint, 0.02) });
  }

  draw(curve) {
    this.curve.setData(curve.at_ms.map((ms, i) => ({ time: ms / 1000, value: curve.equity[i] })));
    this.chart.timeScale().fitContent();
  }
}
