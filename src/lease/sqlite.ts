/**
 * The embedded registry: one SQLite file that the agents of one machine share. No server, no configuration; what
 * flannel keeps in etcd is in its tables, in flannel's form.
 */

import { randomInt } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'
import type { Ip, PerFamily } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'
import { chooseSubnets } from './allocate.ts'
import {
  type Contents,
  decodeEntry,
  type Entry,
  entrySubnets,
  isLive,
  overlaps,
  Snapshots,
  tryDecode,
} from './entries.ts'
import { encodeLeaseValue, formatLeaseKey, type Lease, type LeaseAttributes, sameHost } from './lease.ts'
import { pause } from './pause.ts'
import {
  type LeaseRegistry,
  type LeaseRequest,
  observed,
  type RegistryAdmin,
  RegistryError,
  type RegistryEvent,
  type RegistryObserver,
  type RegistryUnavailable,
} from './registry.ts'
import { planReservation } from './reservation.ts'
import { Follower, readEntries, type WriteOptions, write } from './sqlite-file.ts'

/** All in milliseconds. */
export interface SqliteOptions {
  /** How long a lease lasts without a renewal. */
  readonly ttl?: number
  /** How long before its end a lease is renewed. */
  readonly renewMargin?: number
  /** How soon a change is seen. */
  readonly pollInterval?: number
  readonly observe?: RegistryObserver | undefined
}

const HOUR = 3_600_000

/** How long one call goes on trying while others write. */
const WRITE_PATIENCE = 10_000

type Tick =
  | { readonly kind: 'contents'; readonly contents: Contents }
  | { readonly kind: 'unchanged' }
  | RegistryUnavailable

export class SqliteRegistry implements LeaseRegistry, RegistryAdmin {
  readonly name: string
  readonly #path: string
  readonly #ttl: number
  readonly #renewMargin: number
  readonly #pollInterval: number
  readonly #observe: RegistryObserver | undefined
  readonly #closed = new AbortController()

  constructor(path: string, options: SqliteOptions = {}) {
    this.name = `sqlite:${path}`
    this.#path = path
    this.#ttl = options.ttl ?? 24 * HOUR
    this.#renewMargin = options.renewMargin ?? HOUR
    this.#pollInterval = options.pollInterval ?? 100
    this.#observe = options.observe
  }

  async readConfig(signal: AbortSignal): Promise<string | undefined> {
    for await (const tick of this.#ticks(signal)) {
      if (tick.kind === 'contents') return tick.contents.config
      if (tick.kind === 'unavailable') throw new RegistryError('unavailable', tick.reason)
    }
    signal.throwIfAborted()
    throw new RegistryError('unavailable', `${this.name} is closed`)
  }

  acquire({ config, attributes, previous, current }: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#write({ signal }, (database) => {
      const now = Date.now()
      const entries = readEntries(database)
      const leases: Lease[] = []
      const unreadable: PerFamily<Prefix>[] = []
      for (const entry of entries) {
        const lease = tryDecode(entry)
        if (typeof lease === 'string') {
          if (isLive(entry, now)) unreadable.push(entrySubnets(entry))
        } else if (isLive(entry, now) || sameHost(lease.publicIps, (current ?? attributes).publicIps)) {
          // An expired lease of ours that is still here was taken by nobody.
          leases.push(lease)
        }
      }
      const { publicIps } = attributes
      const { ranges } = config
      const choice = chooseSubnets({
        ranges,
        publicIps,
        previous,
        current,
        leases,
        unreadable,
        random: (limit) => randomInt(limit),
      })
      if (choice.kind === 'out-of-subnets') throw new RegistryError('out-of-subnets', choice.message)
      for (const { key } of choice.remove) remove(database, key)
      if (choice.kind === 'reuse') {
        const { subnets, expires } = choice.lease
        return put(database, subnets, attributes, expires === undefined ? undefined : now + this.#ttl)
      }
      removeExpired(database, entries, choice.subnets, now)
      return put(database, choice.subnets, attributes, now + this.#ttl)
    })
  }

  async *watch(signal: AbortSignal): AsyncGenerator<RegistryEvent> {
    const snapshots = new Snapshots()
    let contents: Contents | undefined
    let failure: string | undefined
    for await (const tick of this.#ticks(signal)) {
      if (tick.kind === 'unavailable') {
        if (tick.reason !== failure) yield tick
        failure = tick.reason
        continue
      }
      if (tick.kind === 'contents') contents = tick.contents
      const recovered = failure !== undefined
      const due = recovered || tick.kind === 'contents' || Date.now() >= snapshots.validUntil
      if (contents === undefined || !due) continue
      const { snapshot, news } = snapshots.take(contents, Date.now())
      failure = undefined
      if (recovered || news) yield snapshot
    }
  }

  async hold(lease: Lease, signal: AbortSignal): Promise<'lost' | 'released'> {
    let terms: Terms | 'lost' = this.#terms({ ...lease, value: encodeLeaseValue(lease) }, lease)
    for await (const tick of this.#ticks(signal)) {
      if (tick.kind === 'contents') {
        terms = this.#terms(
          tick.contents.entries.find(({ key }) => key === lease.key),
          lease,
        )
      }
      if (terms !== 'lost' && tick.kind !== 'unavailable' && Date.now() >= terms.renewAt) {
        terms = await this.#renew(lease, terms)
      }
      if (terms === 'lost' || Date.now() >= terms.expires) return 'lost'
    }
    return 'released'
  }

  async putConfig(text: string): Promise<void> {
    await this.#write({ create: true }, (database) => {
      const upsert =
        'INSERT INTO config (id, text) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET text = excluded.text'
      database.prepare(upsert).run(text)
    })
  }

  async reserve(subnets: PerFamily<Prefix>, publicIps: PerFamily<Ip>): Promise<Lease> {
    return this.#write({ create: true }, (database) => {
      const now = Date.now()
      const entries = readEntries(database)
      const live = entries.filter((entry) => isLive(entry, now))
      const known = live.map((entry) => ({ entry, result: tryDecode(entry) }))
      const { attributes } = planReservation(known, subnets, publicIps)
      removeExpired(database, entries, subnets, now)
      return put(database, subnets, attributes, undefined)
    })
  }

  async release(subnet: Prefix): Promise<void> {
    await this.#write({}, (database) => {
      const found = readEntries(database).filter((entry) =>
        Object.values(entrySubnets(entry)).includes(subnet),
      )
      if (found.length === 0) throw new RegistryError('not-found', `there is no lease of ${subnet}`)
      for (const { key } of found) remove(database, key)
    })
  }

  async close(): Promise<void> {
    this.#closed.abort()
  }

  /** What the file has to say, again and again. */
  async *#ticks(signal: AbortSignal): AsyncGenerator<Tick> {
    const ends = AbortSignal.any([signal, this.#closed.signal])
    const follower = new Follower(this.#path)
    try {
      while (!ends.aborted) {
        yield poll(follower)
        await pause(this.#pollInterval, ends)
      }
    } finally {
      follower.close()
    }
  }

  /** What an entry says about our lease. An unreadable value is damage to what is ours, and is written again at once. */
  #terms(entry: Entry | undefined, lease: Lease): Terms | 'lost' {
    if (entry === undefined) return 'lost'
    const found = tryDecode(entry)
    const damaged = typeof found === 'string'
    if (!damaged && !sameHost(found.publicIps, lease.publicIps)) return 'lost'
    const expires = entry.expires ?? Number.POSITIVE_INFINITY
    return { expires, renewAt: damaged ? 0 : expires - this.#renewMargin }
  }

  /** The terms as they were when the file could not be written: there is another tick. */
  async #renew(lease: Lease, terms: Terms): Promise<Terms | 'lost'> {
    try {
      return await this.#write({ patience: 0 }, (database) => {
        const entry = readEntries(database).find(({ key }) => key === lease.key)
        if (entry === undefined || this.#terms(entry, lease) === 'lost') return 'lost'
        const { subnets } = lease
        const expires = entry.expires === undefined ? undefined : Date.now() + this.#ttl
        const renewed = put(database, subnets, lease, expires)
        return this.#terms({ ...entry, ...renewed, value: encodeLeaseValue(renewed) }, lease)
      })
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'unavailable') return terms
      throw error
    }
  }

  #write<T>(options: Partial<WriteOptions>, work: (database: DatabaseSync) => T): Promise<T> {
    const signal = AbortSignal.any([this.#closed.signal, ...(options.signal ? [options.signal] : [])])
    const settings = { create: false, patience: WRITE_PATIENCE, ...options, signal }
    return observed(
      this.#observe,
      'write',
      () => write(this.#path, settings, work),
      () => performance.now(),
    )
  }
}

/** Milliseconds since the epoch; both infinite for a reservation. */
interface Terms {
  readonly expires: number
  readonly renewAt: number
}

function poll(follower: Follower): Tick {
  try {
    const contents = follower.poll()
    return contents === undefined ? { kind: 'unchanged' } : { kind: 'contents', contents }
  } catch (error) {
    if (error instanceof RegistryError) return { kind: 'unavailable', reason: error.message }
    throw error
  }
}

/** Inserts or renews. A lease that is renewed keeps its place in the order of creation. */
function put(
  database: DatabaseSync,
  subnets: PerFamily<Prefix>,
  attributes: LeaseAttributes,
  expires: number | undefined,
): Lease {
  const key = formatLeaseKey(subnets)
  const value = encodeLeaseValue(attributes)
  const upsert = database.prepare(`
    INSERT INTO leases (key, value, expires) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
    RETURNING created`)
  const row = upsert.get(key, value, expires ?? null)
  return decodeEntry({ key, value, expires, created: Number(row?.['created']) })
}

function remove(database: DatabaseSync, key: string): void {
  database.prepare('DELETE FROM leases WHERE key = ?').run(key)
}

/** What has expired gives way only to who takes its place: until then its host may come back to it. */
function removeExpired(
  database: DatabaseSync,
  entries: readonly Entry[],
  subnets: PerFamily<Prefix>,
  now: number,
): void {
  for (const entry of entries)
    if (!isLive(entry, now) && overlaps(entry, subnets)) remove(database, entry.key)
}
