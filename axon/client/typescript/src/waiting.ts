/**
 * Waiting: for a place, for a while, for a signal.
 */

/** Waits so long. Rejects with the signal's reason when that comes first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The promise, or the signal's reason if that comes first. What was promised goes on by itself. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    const over = (): void => signal.removeEventListener("abort", stop);
    promise.then(resolve, reject).finally(over);
  });
}

/** A signal that comes with the given one, or when this time is over. */
export interface Limited {
  signal: AbortSignal;
  /** Whether the time was over first. */
  isOver(): boolean;
  /** Must be called when nothing waits for it any more. */
  end(): void;
}

/** Bounds a wait by a time, and by a signal if there is one. */
export function limited(outer: AbortSignal | undefined, ms: number): Limited {
  const inner = new AbortController();
  let over = false;
  const stop = (): void => inner.abort(outer?.reason);
  const timer = setTimeout(() => {
    over = !inner.signal.aborted;
    inner.abort();
  }, ms);
  if (outer?.aborted) stop();
  outer?.addEventListener("abort", stop, { once: true });
  return {
    signal: inner.signal,
    isOver: () => over,
    end: () => {
      clearTimeout(timer);
      outer?.removeEventListener("abort", stop);
    },
  };
}

/** Whether the promise is settled within this time, in whichever way. */
export async function settles(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const late = new AbortController();
  const done = promise.then(
    () => true,
    () => true,
  );
  const time = sleep(ms, late.signal).then(
    () => false,
    () => true,
  );
  const first = await Promise.race([done, time]);
  late.abort();
  return first;
}

/** A number of places, given in the order in which they are asked for. */
export class Places {
  #free: number;
  #waiting = new Set<() => void>();

  constructor(places: number) {
    this.#free = places;
  }

  /** How many wait for one. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Takes a place if one is free now. */
  takeNow(): boolean {
    if (this.#free === 0) return false;
    this.#free -= 1;
    return true;
  }

  /** Takes a place, when there is one; whoever gets it gives it back with {@link Places.give}. */
  take(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.takeNow()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const next = (): void => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = (): void => {
        this.#waiting.delete(next);
        reject(signal?.reason);
      };
      this.#waiting.add(next);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }

  /** Gives a place back. */
  give(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

/** Wakes all who wait for the next time that something happened. */
export class Bell {
  #rung: Promise<void>;
  #ring: () => void = () => undefined;

  constructor() {
    this.#rung = new Promise((resolve) => (this.#ring = resolve));
  }

  /** Settles at the next {@link Bell.ring}. */
  next(): Promise<void> {
    return this.#rung;
  }

  /** Wakes who waits now. */
  ring(): void {
    this.#ring();
    this.#rung = new Promise((resolve) => (this.#ring = resolve));
  }
}
