/** What a registry stores, read as leases. */

import type { PerFamily } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'
import {
  decodeLeaseValue,
  formatLeaseKey,
  type Lease,
  LeaseError,
  type LeaseKey,
  parseLeaseKey,
} from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

/** A lease as it is stored: text that anybody may have written. */
export interface Entry {
  readonly key: string
  readonly value: string
  /** Milliseconds since the epoch. */
  readonly expires: number | undefined
  readonly created: number
}

/** All that a registry holds at one moment. */
export interface Contents {
  /** Another one after the store was replaced. */
  readonly incarnation: string
  readonly config: string | undefined
  /** The oldest first. */
  readonly entries: readonly Entry[]
}

/** @throws {LeaseError} */
export function decodeEntry({ key, value, expires, created }: Entry): Lease {
  const subnets = parseLeaseKey(key)
  return { ...decodeLeaseValue(value), key: formatLeaseKey(subnets), subnets, expires, created }
}

/** The lease, or the reason why there is none. */
export function tryDecode(entry: Entry): Lease | string {
  try {
    return decodeEntry(entry)
  } catch (error) {
    if (error instanceof LeaseError) return error.message
    throw error
  }
}

/** The subnets that an entry stands for, even when its value cannot be read; none when the key cannot. */
export function entrySubnets({ key }: Entry): PerFamily<Prefix> {
  try {
    return parseLeaseKey(key)
  } catch (error) {
    if (error instanceof LeaseError) return {}
    throw error
  }
}

/** Makes snapshots of the whole store. An entry that did not change is the same `Lease` object as before. */
export class Snapshots {
  #known: ReadonlyMap<string, { entry: Entry; result: Lease | string }> = new Map()
  #last: LeaseSnapshot | undefined
  #validUntil = Number.POSITIVE_INFINITY

  /** When the first lease of the last snapshot expires, in milliseconds since the epoch. */
  get validUntil(): number {
    return this.#validUntil
  }

  /** The entries, the oldest first, of which those count that have not expired at `now`. */
  take({ entries, config, incarnation }: Contents, now: number): { snapshot: LeaseSnapshot; news: boolean } {
    const known = new Map<string, { entry: Entry; result: Lease | string }>()
    const leases = new Map<LeaseKey, Lease>()
    const malformed = new Map<string, string>()
    this.#validUntil = Number.POSITIVE_INFINITY
    for (const entry of entries) {
      if (!isLive(entry, now)) continue
      const before = this.#known.get(entry.key)
      const result = before !== undefined && isSame(before.entry, entry) ? before.result : tryDecode(entry)
      known.set(entry.key, { entry, result })
      this.#validUntil = Math.min(this.#validUntil, entry.expires ?? Number.POSITIVE_INFINITY)
      if (typeof result === 'string') malformed.set(entry.key, result)
      else if (leases.has(result.key)) malformed.set(entry.key, `it is another spelling of ${result.key}`)
      else leases.set(result.key, result)
    }
    const last = this.#last
    const changed = last && differences(last.leases, leases)
    const snapshot = { kind: 'snapshot', config, leases, changed, malformed, incarnation } as const
    this.#known = known
    this.#last = snapshot
    const news =
      last === undefined ||
      changed?.size !== 0 ||
      last.config !== config ||
      last.incarnation !== incarnation ||
      differences(last.malformed, malformed).size !== 0
    return { snapshot, news }
  }
}

export function isLive({ expires }: Pick<Entry, 'expires'>, now: number): boolean {
  return expires === undefined || expires > now
}

function isSame(a: Entry, b: Entry): boolean {
  return a.value === b.value && a.expires === b.expires && a.created === b.created
}

function differences<K, V>(before: ReadonlyMap<K, V>, after: ReadonlyMap<K, V>): Set<K> {
  const keys = new Set<K>()
  for (const [key, value] of after) if (before.get(key) !== value) keys.add(key)
  for (const key of before.keys()) if (!after.has(key)) keys.add(key)
  return keys
}
