/** A lease that is kept. */

import { tryDecode } from '../entries.ts'
import { encodeLeaseValue, type Lease, sameHost } from '../lease.ts'
import { RegistryError } from '../registry.ts'
import { type Store, tidy } from './claim.ts'
import { follow, type Tick } from './follow.ts'
import type { Stored } from './range.ts'
import { discard, keepAlive, WITHOUT_END } from './term.ts'
import { commit, put, unchanged } from './transaction.ts'
import { within } from '../within.ts'

/** Milliseconds until a renewal that failed is tried again. */
const RETRY = 1000

/** @param margin How long before its end the lease is renewed, in milliseconds. */
export async function holdLease(
  store: Store,
  lease: Lease,
  margin: number,
  signal: AbortSignal,
): Promise<'lost' | 'released'> {
  const ends = new AbortController()
  const both = AbortSignal.any([signal, ends.signal])
  const holding = new Holding(store, lease, margin)
  const ticks = follow(store.client, [{ from: holding.key }], both)
  let next = ticks.next()
  try {
    for (;;) {
      const result = await within(next, holding.due - Date.now())
      if (signal.aborted || result?.done === true) return 'released'
      if (result !== undefined) {
        holding.see(result.value)
        next = ticks.next()
      }
      if (await holding.isLost(signal)) return 'lost'
    }
  } catch (error) {
    if (signal.aborted) return 'released'
    throw error
  } finally {
    ends.abort()
    await next
  }
}

class Holding {
  readonly key: string
  readonly #store: Store
  readonly #lease: Lease
  readonly #margin: number
  #stored: Stored | 'gone' | 'unknown' = 'unknown'
  /** The etcd lease under the key while it was ours. */
  #term = WITHOUT_END.id
  /** Milliseconds since the epoch. */
  #expires: number
  #renewAt: number

  constructor(store: Store, lease: Lease, margin: number) {
    this.key = store.keys.keyOf(lease.subnets)
    this.#store = store
    this.#lease = lease
    this.#margin = margin
    this.#expires = lease.expires ?? Number.POSITIVE_INFINITY
    this.#renewAt = this.#expires - this.#lead(store.ttl)
  }

  /** When something is to be done, if nothing is seen before. */
  get due(): number {
    return this.#stored === 'unknown' ? this.#expires : Math.min(this.#renewAt, this.#expires)
  }

  see(tick: Tick): void {
    if (tick.kind === 'unavailable') return
    const seen = tick.kind === 'contents' ? tick.stored : tick.changes
    if (tick.kind === 'changes' && !seen.has(this.key)) return
    const first = this.#stored === 'unknown'
    const stored = seen.get(this.key) ?? 'gone'
    this.#stored = stored
    if (stored === 'gone' || this.#read(stored) === 'of another host') return
    if (stored.lease === WITHOUT_END.id) this.#expires = this.#renewAt = Number.POSITIVE_INFINITY
    else if (!first && stored.lease !== this.#term) this.#renewAt = 0
    // Damage to what is ours.
    if (this.#read(stored) === 'unreadable') this.#renewAt = 0
    this.#term = stored.lease
  }

  /** Renews when that is due. */
  async isLost(signal: AbortSignal): Promise<boolean> {
    const stored = this.#stored
    if (stored === 'unknown') return Date.now() >= this.#expires
    if (stored === 'gone' || this.#read(stored) === 'of another host') {
      await tidy(discard(this.#store.client, this.#term, signal))
      return true
    }
    if (Date.now() >= this.#renewAt && !(await this.#renew(stored, signal))) return true
    return Date.now() >= this.#expires
  }

  /** Whether there still is something to renew. Keeps the etcd lease alive, then shows that the key is ours to write. */
  async #renew(stored: Stored, signal: AbortSignal): Promise<boolean> {
    const { client } = this.#store
    this.#renewAt = Date.now() + RETRY
    try {
      const term =
        stored.lease === WITHOUT_END.id ? WITHOUT_END : await keepAlive(client, stored.lease, signal)
      if (term === undefined) return false
      this.#expires = term.expires ?? Number.POSITIVE_INFINITY
      const value = encodeLeaseValue(this.#lease)
      const renewed = await commit(client, [unchanged(stored)], [put(this.key, value, term.id)], signal)
      if (renewed !== undefined) this.#renewAt = this.#expires - this.#lead(term.ttl)
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error
    }
    return true
  }

  /** How long before its end a lease of that length is renewed. */
  #lead(ttl: number): number {
    return this.#margin < ttl ? this.#margin : ttl / 2
  }

  #read(stored: Stored): 'ours' | 'of another host' | 'unreadable' {
    const lease = tryDecode(this.#store.keys.entryOf(stored))
    if (typeof lease === 'string') return 'unreadable'
    return sameHost(lease.publicIps, this.#lease.publicIps) ? 'ours' : 'of another host'
  }
}
