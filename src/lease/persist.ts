/** A stream that breaks, begun anew until a signal. */

import { pause } from './pause.ts'
import { RegistryError, type RegistryUnavailable } from './registry.ts'

/** Milliseconds between attempts: at first, and at most. */
const FIRST_PAUSE = 100
const LAST_PAUSE = 5000

/** What each attempt gives, and why it broke. Ends with the signal; of errors, only those are told that are a registry's. */
export async function* persist<T>(
  attempt: () => AsyncGenerator<T, void>,
  signal: AbortSignal,
): AsyncGenerator<T | RegistryUnavailable, void> {
  let delay = FIRST_PAUSE
  while (!signal.aborted) {
    const begun = Date.now()
    try {
      yield* attempt()
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof RegistryError)) throw error
      yield { kind: 'unavailable', reason: error.message }
    }
    // What lasted is taken up again at once, what fails at once is not.
    delay = Date.now() - begun > LAST_PAUSE ? FIRST_PAUSE : Math.min(delay * 2, LAST_PAUSE)
    await pause(delay * (0.5 + Math.random() / 2), signal)
  }
}
