// A part of the page: fetched again when its version moved, never more often than it wants, one request at a time.

export class Part {
  constructor(gapMs, refresh) {
    this.gapMs = gapMs;
    this.refresh = refresh;
    this.seen = null;
    this.wanted = null;
    this.busy = false;
    this.failure = null;
  }

  // `version` is anything that compares: what it is now on the server.
  want(version) {
    this.wanted = version;
    if (!this.busy && this.wanted !== this.seen) this.#run();
  }

  again() {
    this.seen = null;
    this.want(this.wanted ?? 0);
  }

  async #run() {
    this.busy = true;
    this.seen = this.wanted;
    try {
      await this.refresh();
      this.failure = null;
    } catch (error) {
      this.failure = error.message; // shown by the page; asked again with the next pulse
      this.seen = null;
    }
    setTimeout(() => {
      this.busy = false;
      if (this.wanted !== this.seen) this.#run();
    }, this.failure ? 2000 : this.gapMs);
  }
}
