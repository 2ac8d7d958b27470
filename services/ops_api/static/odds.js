// The odds of the three regimes, stacked over each bar, as a series of the chart. A bar that nobody read is drawn as unknown.

const isKnown = (bar) => bar.bull !== null;

// What is above what: from the floor up.
const STACK = ["bull", "chop", "bear"];

export class OddsSeries {
  #data = null;
  #options = null;

  defaultOptions() {
    return {
      bull: "", bear: "", chop: "", unknown: "",
      priceFormat: { type: "custom", formatter: (share) => `${Math.round(100 * share)} %`, minMove: 0.01 },
      autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 1 } }),
    };
  }

  renderer() {
    return this;
  }

  update(data, options) {
    this.#data = data;
    this.#options = options;
  }

  priceValueBuilder(bar) {
    return [0, 1, isKnown(bar) ? bar.bull : 0]; // the last one is where the crosshair holds on to
  }

  isWhitespace() {
    return false; // that nothing is known is something to show
  }

  draw(target, toHeight) {
    const { bars, barSpacing, visibleRange } = this.#data ?? {};
    if (!visibleRange) return;
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio: wide, verticalPixelRatio: high }) => {
      const height = (share) => Math.round(toHeight(share) * high);
      for (const { x, originalData: bar } of bars.slice(visibleRange.from, visibleRange.to)) {
        const left = Math.round((x - barSpacing / 2) * wide);
        const width = Math.round((x + barSpacing / 2) * wide) - left;
        const box = (name, from, to) => {
          context.fillStyle = this.#options[name];
          context.fillRect(left, height(to), width, height(from) - height(to));
        };
        if (!isKnown(bar)) {
          box("unknown", 0, 1);
          continue;
        }
        let floor = 0;
        for (const name of STACK) {
          box(name, floor, floor + bar[name]);
          floor += bar[name];
        }
      }
    });
  }
}
