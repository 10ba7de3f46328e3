/** Something to do: rung by whoever made work, heard by the one loop that does it. Rings that nobody heard are one. */

export class Bell {
  #rung = false
  #wake: (() => void) | undefined
  readonly #awaken = (): void => this.#wake?.()
  #signal: AbortSignal | undefined
  #timer: NodeJS.Timeout | undefined
  /** When the timer ends, and when it is to end: never after that. Milliseconds, as `performance.now()`. */
  #ends = 0
  #wanted = 0

  ring(): void {
    this.#rung = true
    this.#awaken()
  }

  /**
   * Resolves with the next ring (at once, if there was one), after `timeout` milliseconds, or with the signal.
   * Returns whether it rang.
   */
  async heard(timeout: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#rung && !signal.aborted) {
      this.#listen(signal)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        this.#wanted = performance.now() + timeout
        this.#setTimer()
      })
      this.#wake = undefined
      this.#timer?.unref()
    }
    const rung = this.#rung
    this.#rung = false
    return rung
  }

  /** Once for each signal: between a ring and what it is for, nothing is put on and taken off. */
  #listen(signal: AbortSignal): void {
    if (signal === this.#signal) return
    this.#signal?.removeEventListener('abort', this.#awaken)
    this.#signal = signal
    signal.addEventListener('abort', this.#awaken)
  }

  /** A timer that ends before it need is left as it is, and set again when it has ended. */
  #setTimer(): void {
    if (this.#timer !== undefined && this.#ends <= this.#wanted) {
      this.#timer.ref()
      return
    }
    clearTimeout(this.#timer)
    this.#ends = this.#wanted
    this.#timer = setTimeout(() => this.#end(), this.#wanted - performance.now())
  }

  #end(): void {
    this.#timer = undefined
    if (this.#wake === undefined) return
    if (this.#wanted > performance.now()) this.#setTimer()
    else this.#awaken()
  }
}
