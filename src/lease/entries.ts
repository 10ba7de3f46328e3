/** What a registry stores, read as leases. */

import type { PerFamily } from '../address/ip.ts'
import { type Prefix, prefixesOverlap } from '../address/prefix.ts'
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
export function entrySubnets({ key }: Pick<Entry, 'key'>): PerFamily<Prefix> {
  try {
    return parseLeaseKey(key)
  } catch (error) {
    if (error instanceof LeaseError) return {}
    throw error
  }
}

/** What the entries stand for: leases, each with its entry, and the subnets of those that cannot be read. */
export function readLeases<E extends Entry>(
  entries: Iterable<E>,
): { leases: ReadonlyMap<Lease, E>; unreadable: readonly PerFamily<Prefix>[] } {
  const leases = new Map<Lease, E>()
  const unreadable: PerFamily<Prefix>[] = []
  for (const entry of entries) {
    const lease = tryDecode(entry)
    if (typeof lease === 'string') unreadable.push(entrySubnets(entry))
    else leases.set(lease, entry)
  }
  return { leases, unreadable }
}

/** Whether an entry and a host's subnets share an address. */
export function overlaps(entry: Pick<Entry, 'key'>, subnets: PerFamily<Prefix>): boolean {
  const mine = Object.values(subnets)
  return Object.values(entrySubnets(entry)).some((other) =>
    mine.some((subnet) => prefixesOverlap(other, subnet)),
  )
}

/** Makes snapshots of the whole store. An entry that did not change is the same `Lease` object as before. */
export class Snapshots {
  #known = new Map<string, Known>()
  /** Whether a key is spelled otherwise than it would be written: then two may stand for one lease. */
  #aliased = false
  #last: LeaseSnapshot | undefined
  #validUntil = Number.POSITIVE_INFINITY

  /** When the first lease of the last snapshot expires, in milliseconds since the epoch. */
  get validUntil(): number {
    return this.#validUntil
  }

  /** The entries, the oldest first, of which those count that have not expired at `now`. */
  take({ entries, config, incarnation }: Contents, now: number): { snapshot: LeaseSnapshot; news: boolean } {
    const known = new Map<string, Known>()
    const leases = new Map<LeaseKey, Lease>()
    const malformed = new Map<string, string>()
    this.#validUntil = Number.POSITIVE_INFINITY
    this.#aliased = false
    for (const entry of entries) {
      if (!isLive(entry, now)) continue
      const { result } = this.#remember(entry, known)
      this.#validUntil = Math.min(this.#validUntil, entry.expires ?? Number.POSITIVE_INFINITY)
      if (typeof result === 'string') malformed.set(entry.key, result)
      else if (leases.has(result.key)) malformed.set(entry.key, `it is another spelling of ${result.key}`)
      else leases.set(result.key, result)
    }
    this.#known = known
    const changed = this.#last && differences(this.#last.leases, leases)
    return this.#next({ kind: 'snapshot', config, leases, changed, malformed, incarnation })
  }

  /**
   * The next snapshot of a store that removes by itself what has expired, after some entries changed (undefined: went).
   * Costs what changed, and a copy of the map.
   */
  change(
    changes: ReadonlyMap<string, Entry | undefined>,
    { config, incarnation }: Pick<Contents, 'config' | 'incarnation'>,
  ): { snapshot: LeaseSnapshot; news: boolean } {
    const leases = new Map(this.#last?.leases)
    const malformed = new Map(this.#last?.malformed)
    const changed = new Set<LeaseKey>()
    for (const [key, entry] of changes) {
      const old = this.#known.get(key)?.result
      if (typeof old === 'object' && leases.delete(old.key)) changed.add(old.key)
      malformed.delete(key)
      this.#known.delete(key)
      if (entry === undefined) continue
      const { result } = this.#remember(entry, this.#known)
      if (typeof result === 'string') {
        malformed.set(key, result)
      } else {
        leases.set(result.key, result)
        changed.add(result.key)
      }
    }
    if (!this.#aliased)
      return this.#next({ kind: 'snapshot', config, leases, changed, malformed, incarnation })
    const entries = [...this.#known.values()].map(({ entry }) => entry).sort((a, b) => a.created - b.created)
    return this.take({ entries, config, incarnation }, 0)
  }

  /** Decodes what is new. */
  #remember(entry: Entry, known: Map<string, Known>): Known {
    const before = this.#known.get(entry.key)
    const same = before !== undefined && isSame(before.entry, entry)
    const now = same ? before : { entry, result: tryDecode(entry) }
    this.#aliased ||= typeof now.result === 'object' && now.result.key !== entry.key
    known.set(entry.key, now)
    return now
  }

  #next(snapshot: LeaseSnapshot): { snapshot: LeaseSnapshot; news: boolean } {
    const last = this.#last
    this.#last = snapshot
    const news =
      last === undefined ||
      snapshot.changed?.size !== 0 ||
      last.config !== snapshot.config ||
      last.incarnation !== snapshot.incarnation ||
      differences(last.malformed, snapshot.malformed).size !== 0
    return { snapshot, news }
  }
}

interface Known {
  readonly entry: Entry
  readonly result: Lease | string
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
