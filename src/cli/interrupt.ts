/** Ends work in good order when somebody wants it to end. */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** The work was interrupted. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
}

/**
 * Gives `work` a signal that Ctrl-C, SIGTERM, a closed terminal or a closed pipe abort. While it runs they do nothing
 * else, however often they come: taking a lab away is not interrupted.
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const abort = (reason: string) => () => controller.abort(new Interrupted(`interrupted by ${reason}`))
  const listeners = SIGNALS.map((name) => [name, abort(name)] as const)
  for (const [name, listener] of listeners) process.on(name, listener)
  // Stays: what is still to be said when the work has ended is lost, and that is no failure of its own.
  process.stdout.on('error', abort('a closed output'))
  try {
    return await work(controller.signal)
  } finally {
    for (const [name, listener] of listeners) process.off(name, listener)
  }
}
