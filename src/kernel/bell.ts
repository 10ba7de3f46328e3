/** Something to do: rung by whoever made work, heard by the one loop that does it. Rings that nobody heard are one. */

export class Bell {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /**
   * Resolves with the next ring (at once, if there was one), after `timeout` milliseconds, or with the signal.
   * Returns whether it rang.
   */
  async heard(timeout: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#rung && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer)
          signal.removeEventListener('abort', wake)
          resolve()
        }
        const timer = setTimeout(wake, timeout)
        this.#wake = wake
        signal.addEventListener('abort', wake)
      })
    }
    const rung = this.#rung
    this.#wake = undefined
    this.#rung = false
    return rung
  }
}
