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

/** An entry, and the lease that it is or the reason why it is none. */
export interface Known<E extends Entry = Entry> {
  readonly entry: E
  readonly result: Lease | string
}

/** What the entries stand for: leases, each with its entry, and the subnets of those that cannot be read. */
export function readLeases<E extends Entry>(
  known: Iterable<Known<E>>,
): { leases: ReadonlyMap<Lease, E>; unreadable: readonly PerFamily<Prefix>[] } {
  const leases = new Map<Lease, E>()
  const unreadable: PerFamily<Prefix>[] = []
  for (const { entry, result } of known) {
    if (typeof result === 'string') unreadable.push(entrySubnets(entry))
    else leases.set(result, entry)
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
  #known: Map<string, Known>
  #leases = new Map<LeaseKey, Lease>()
  #malformed = new Map<string, string>()
  /** Whether a key is spelled otherwise than it would be written: then two may stand for one lease. */
  #aliased = false
  #last: LeaseSnapshot | undefined
  #validUntil = Number.POSITIVE_INFINITY

  /** @param known All entries of the first snapshot, when they are decoded already. They are given away. */
  constructor(known: Map<string, Known> = new Map()) {
    this.#known = known
  }

  /** The first snapshot, of the entries that were given. */
  begin({ config, incarnation }: Pick<Contents, 'config' | 'incarnation'>): Taken {
    for (const { entry, result } of this.#known.values()) {
      if (typeof result === 'string') this.#malformed.set(entry.key, result)
      else if (result.key === entry.key) this.#leases.set(result.key, result)
      else return this.#takeKnown({ config, incarnation })
    }
    return this.#next({ config, incarnation, changed: undefined, gone: new Map() })
  }

  /** When the first lease of the last snapshot expires, in milliseconds since the epoch. */
  get validUntil(): number {
    return this.#validUntil
  }

  /** The entries, the oldest first, of which those count that have not expired at `now`. */
  take({ entries, config, incarnation }: Contents, now: number): Taken {
    const before = this.#leases
    const known = new Map<string, Known>()
    const malformed = new Map<string, string>()
    this.#leases = new Map()
    this.#validUntil = Number.POSITIVE_INFINITY
    this.#aliased = false
    for (const entry of entries) {
      if (!isLive(entry, now)) continue
      const { result } = this.#remember(entry, known)
      this.#validUntil = Math.min(this.#validUntil, entry.expires ?? Number.POSITIVE_INFINITY)
      if (typeof result === 'string') malformed.set(entry.key, result)
      else if (this.#leases.has(result.key))
        malformed.set(entry.key, `it is another spelling of ${result.key}`)
      else this.#leases.set(result.key, result)
    }
    this.#known = known
    if (differences(this.#malformed, malformed).size > 0) this.#malformed = malformed
    const changed = this.#last && differences(before, this.#leases)
    return this.#next({ config, incarnation, changed, gone: absent(before, this.#leases) })
  }

  /**
   * The next snapshot of a store that removes by itself what has expired, after some entries changed (undefined: went).
   * Costs what changed.
   */
  change(
    changes: ReadonlyMap<string, Entry | undefined>,
    { config, incarnation }: Pick<Contents, 'config' | 'incarnation'>,
  ): Taken {
    const before = [...changes.keys()].map((key) => [key, this.#known.get(key)?.result] as const)
    for (const [key, entry] of changes) {
      if (entry === undefined) this.#known.delete(key)
      else this.#remember(entry, this.#known)
    }
    if (this.#aliased) return this.#takeKnown({ config, incarnation })
    const changed = new Set<LeaseKey>()
    const gone = new Map<LeaseKey, Lease>()
    for (const [key, old] of before) {
      const result = this.#known.get(key)?.result
      if (result === old) continue
      const is = typeof result === 'object' ? result : undefined
      const was = typeof old === 'object' ? old : undefined
      const lease = is ?? was
      if (lease !== undefined) changed.add(lease.key)
      if (is !== undefined) this.#leases.set(is.key, is)
      else if (was !== undefined && this.#leases.delete(was.key)) gone.set(was.key, was)
      this.#setFault(key, typeof result === 'string' ? result : undefined)
    }
    return this.#next({ config, incarnation, changed, gone })
  }

  /** What two spellings of one lease stand for depends on which is older. */
  #takeKnown(contents: Pick<Contents, 'config' | 'incarnation'>): Taken {
    const entries = [...this.#known.values()].map(({ entry }) => entry).sort((a, b) => a.created - b.created)
    return this.take({ ...contents, entries }, 0)
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

  /** In a new map: whoever holds an earlier one can tell what changed. */
  #setFault(key: string, fault: string | undefined): void {
    if (this.#malformed.get(key) === fault) return
    this.#malformed = new Map(this.#malformed)
    if (fault === undefined) this.#malformed.delete(key)
    else this.#malformed.set(key, fault)
  }

  #next(next: Pick<LeaseSnapshot, 'config' | 'incarnation' | 'changed' | 'gone'>): Taken {
    const last = this.#last
    const snapshot = { kind: 'snapshot', ...next, leases: this.#leases, malformed: this.#malformed } as const
    this.#last = snapshot
    const news =
      next.changed?.size !== 0 ||
      last?.config !== next.config ||
      last?.incarnation !== next.incarnation ||
      last?.malformed !== snapshot.malformed
    return { snapshot, news }
  }
}

/** A snapshot, and whether it differs from the one before. */
export interface Taken {
  readonly snapshot: LeaseSnapshot
  readonly news: boolean
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

function absent<K, V>(before: ReadonlyMap<K, V>, after: ReadonlyMap<K, V>): Map<K, V> {
  return new Map([...before].filter(([key]) => !after.has(key)))
}
