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
export interface Contents<E extends Entry = Entry> {
  /** Another one after the store was replaced. */
  readonly incarnation: string
  readonly config: string | undefined
  readonly entries: readonly E[]
}

/** @throws {LeaseError} */
export function decodeEntry({ key, value, expires, created }: Entry): Lease {
  const subnets = parseLeaseKey(key)
  const { publicIps, backendType, backendData } = decodeLeaseValue(value)
  const written = formatLeaseKey(subnets)
  // As a rule one text, which is held once.
  const name = written === key ? (key as LeaseKey) : written
  return { publicIps, backendType, backendData, key: name, subnets, expires, created }
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

/** What the entries stand for: leases, and the subnets of those that cannot be read. */
export function readLeases(known: Iterable<Known>): {
  leases: readonly Lease[]
  unreadable: readonly PerFamily<Prefix>[]
} {
  const leases: Lease[] = []
  const unreadable: PerFamily<Prefix>[] = []
  for (const { entry, result } of known) {
    if (typeof result === 'string') unreadable.push(entrySubnets(entry))
    else leases.push(result)
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

/**
 * Makes snapshots of the whole store. An entry that did not change is the same `Lease` object as before. Of several
 * entries that stand for one lease (two spellings of its key, two nodes with one subnet) the oldest holds.
 */
export class Snapshots<E extends Entry = Entry> {
  readonly #decode: (entry: E) => Lease | string
  #known: Map<string, Known<E>>
  /** Of a lease, the entries that have another name than its key. */
  #names = new Map<LeaseKey, Set<string>>()
  #leases = new Map<LeaseKey, Lease>()
  #malformed = new Map<string, string>()
  #last: LeaseSnapshot | undefined
  #validUntil = Number.POSITIVE_INFINITY

  /** @param known All entries of the first snapshot, when they are decoded already. They are given away. */
  constructor(known: Map<string, Known<E>> = new Map(), decode: (entry: E) => Lease | string = tryDecode) {
    this.#known = known
    this.#decode = decode
  }

  /** The first snapshot, of the entries that were given. */
  begin({ config, incarnation }: Pick<Contents, 'config' | 'incarnation'>): Taken {
    this.#readKnown()
    return this.#next({ config, incarnation, changed: undefined, gone: new Map() })
  }

  /** When the first lease of the last snapshot expires, in milliseconds since the epoch. */
  get validUntil(): number {
    return this.#validUntil
  }

  /** All entries, of which those count that have not expired at `now`. */
  take({ entries, config, incarnation }: Contents<E>, now: number): Taken {
    const before = { leases: this.#leases, malformed: this.#malformed }
    const known = new Map<string, Known<E>>()
    this.#validUntil = Number.POSITIVE_INFINITY
    for (const entry of entries) {
      if (!isLive(entry, now)) continue
      this.#remember(entry, known)
      this.#validUntil = Math.min(this.#validUntil, entry.expires ?? Number.POSITIVE_INFINITY)
    }
    this.#known = known
    this.#readKnown()
    if (differences(before.malformed, this.#malformed).size === 0) this.#malformed = before.malformed
    const changed = this.#last && differences(before.leases, this.#leases)
    return this.#next({ config, incarnation, changed, gone: absent(before.leases, this.#leases) })
  }

  /**
   * The next snapshot of a store that removes by itself what has expired, after some entries changed (undefined: went).
   * Costs what changed.
   */
  change(
    changes: ReadonlyMap<string, E | undefined>,
    { config, incarnation }: Pick<Contents, 'config' | 'incarnation'>,
  ): Taken {
    /** The leases that may differ, as they were. */
    const touched = new Map<LeaseKey, Lease | undefined>()
    for (const [name, entry] of changes) {
      const old = this.#known.get(name)?.result
      if (entry === undefined) this.#known.delete(name)
      else this.#remember(entry, this.#known)
      const now = this.#known.get(name)?.result
      if (now === old) continue
      for (const lease of [old, now]) {
        if (typeof lease !== 'object' || touched.has(lease.key)) continue
        touched.set(lease.key, this.#leases.get(lease.key))
      }
      if (typeof old === 'object') this.#unname(old.key, name)
      if (typeof now === 'object') this.#name(now.key, name)
      this.#setFault(name, typeof now === 'string' ? now : undefined)
    }
    const changed = new Set<LeaseKey>()
    const gone = new Map<LeaseKey, Lease>()
    for (const [key, before] of touched) {
      const after = this.#settle(key)
      if (after === before) continue
      changed.add(key)
      if (after === undefined && before !== undefined) gone.set(key, before)
    }
    return this.#next({ config, incarnation, changed, gone })
  }

  /** The leases, the names and the faults, all anew. */
  #readKnown(): void {
    this.#names = new Map()
    this.#leases = new Map()
    this.#malformed = new Map()
    for (const [name, { result }] of this.#known) {
      if (typeof result === 'string') this.#malformed.set(name, result)
      else {
        this.#name(result.key, name)
        this.#leases.set(result.key, result)
      }
    }
    for (const key of this.#names.keys()) this.#settle(key)
  }

  /** Decides which entry holds the lease; undefined: there is none. */
  #settle(key: LeaseKey): Lease | undefined {
    const rivals = [key, ...(this.#names.get(key) ?? [])].flatMap((name) => {
      const { entry, result } = this.#known.get(name) ?? {}
      return typeof result === 'object' && result.key === key && entry !== undefined ? { entry, result } : []
    })
    const [first, ...rest] = rivals.sort(byAge)
    if (first === undefined) {
      this.#leases.delete(key)
      return undefined
    }
    this.#leases.set(key, first.result)
    this.#setFault(first.entry.key, undefined)
    for (const { entry } of rest) this.#setFault(entry.key, rivalry(first.result))
    return first.result
  }

  #name(key: LeaseKey, name: string): void {
    if (name === key) return
    const names = this.#names.get(key)
    if (names === undefined) this.#names.set(key, new Set([name]))
    else names.add(name)
  }

  #unname(key: LeaseKey, name: string): void {
    const names = this.#names.get(key)
    if (names?.delete(name) === true && names.size === 0) this.#names.delete(key)
  }

  /** Decodes what is new. */
  #remember(entry: E, known: Map<string, Known<E>>): void {
    const before = this.#known.get(entry.key)
    const same = before !== undefined && isSame(before.entry, entry)
    known.set(entry.key, same ? before : { entry, result: this.#decode(entry) })
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

function byAge({ entry: a }: Known, { entry: b }: Known): number {
  return a.created - b.created || (a.key < b.key ? -1 : 1)
}

/** What is said of an entry for a lease that an older one holds. */
function rivalry({ key, node, subnets }: Lease): string {
  if (node === undefined) return `it is another spelling of ${key}`
  return `the older node ${node} has its subnet ${Object.values(subnets).join(' and ')}`
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
