/** Shares that are made when the kernel is to be told of them. */

import type { Share } from '../state.ts'

interface Source {
  /** How many of them are taken. */
  taken: number
  readonly count: number
  readonly shareAt: (i: number) => Share
}

export class WaitingShares {
  readonly #sources: Source[] = []

  /** @param values Given away, as what each share is made of. */
  add<T>(values: readonly T[], shareOf: (value: T) => Share): void {
    const shareAt = (i: number): Share => shareOf(values[i] as T)
    if (values.length > 0) this.#sources.push({ taken: 0, count: values.length, shareAt })
  }

  /** Whether there is one. */
  get any(): boolean {
    return this.#sources.length > 0
  }

  /** The next ones, at most so many. @throws What making one throws; it is the next one again. */
  take(most: number): Share[] {
    const [source] = this.#sources
    if (source === undefined) return []
    const end = Math.min(source.count, source.taken + most)
    const shares: Share[] = []
    for (let i = source.taken; i < end; i++) shares.push(source.shareAt(i))
    source.taken = end
    if (end === source.count) this.#sources.shift()
    return shares
  }
}
