/** Waiting that is over in time. */

/** Timers take no more milliseconds; nothing comes of one that is too early. */
const LONGEST_TIMEOUT = 2 ** 31 - 1

/** The value, unless it takes longer than that. */
export async function within<T>(value: Promise<T>, milliseconds: number): Promise<T | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const timer = setTimeout(resolve, Math.min(Math.max(milliseconds, 0), LONGEST_TIMEOUT), undefined)
  try {
    return await Promise.race([value, promise])
  } finally {
    clearTimeout(timer)
  }
}
