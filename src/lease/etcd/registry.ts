/**
 * The registry in etcd v3, in flannel's form: `<prefix>/config`, `<prefix>/subnets/<key>`, and under each key an etcd
 * lease that takes it away when its host is gone. tweed and flanneld share it.
 *
 * flanneld takes a new etcd lease for each renewal and leaves the old one behind. Here one is kept alive; the key is
 * written all the same, because that proves that it is still ours, and tells everybody when it would expire.
 */

import { randomInt } from 'node:crypto'
import type { Ip, PerFamily } from '../../address/ip.ts'
import type { Prefix } from '../../address/prefix.ts'
import { chooseSubnets } from '../allocate.ts'
import { entrySubnets, type Known, readLeases, Snapshots, type Taken, tryDecode } from '../entries.ts'
import type { Lease } from '../lease.ts'
import { pause } from '../pause.ts'
import {
  type LeaseRegistry,
  type LeaseRequest,
  type RegistryAdmin,
  RegistryError,
  type RegistryEvent,
} from '../registry.ts'
import { planReservation } from '../reservation.ts'
import { type Claim, type Store, tidy, writeClaim } from './claim.ts'
import { EtcdClient, type EtcdConnection } from './client.ts'
import { follow, type Listing, list, type Tick } from './follow.ts'
import { gather } from './gather.ts'
import { holdLease } from './hold.ts'
import { type EtcdEntry, keysUnder } from './keys.ts'
import { KV } from './methods.ts'
import type { Stored } from './range.ts'
import { PutRequest } from './rpc.ts'
import { discard } from './term.ts'
import { commit, remove } from './transaction.ts'

/** Times in milliseconds. etcd counts a lease in seconds, and has a shortest one of its own. */
export interface EtcdOptions extends EtcdConnection {
  readonly prefix?: string
  /** How long a lease lasts without a renewal. */
  readonly ttl?: number
  /** How long before its end a lease is renewed. */
  readonly renewMargin?: number
}

const DEFAULT_PREFIX = '/coreos.com/network'

const HOUR = 3_600_000

/** How often others may be faster. Each time one of them has its lease: more means that something is wrong. */
const ROUNDS = 100

/** For how long what was asked for beforehand is new enough. Milliseconds. */
const FRESH = 5000

/** All of the network. */
interface Contents {
  readonly listing: Listing
  /** Of the listing, what was decoded. */
  readonly known: Map<string, Known<EtcdEntry>>
}

interface Claimed extends Contents {
  readonly lease: Lease
}

/** Contents on their way. */
interface Reading {
  /** Comes first. Undefined once it was told. */
  config: Promise<string | undefined> | undefined
  readonly contents: Promise<Contents>
}

export class EtcdRegistry implements LeaseRegistry, RegistryAdmin {
  readonly name: string
  readonly #store: Store
  readonly #renewMargin: number
  readonly #closed = new AbortController()
  /** What the last claim read: the watch that follows it need not read it again. */
  #read: Contents | undefined
  /** What was asked for beforehand. */
  #prepared: Reading | undefined
  /** How many watches there are. */
  #watches = 0

  /** @throws {RegistryError} `invalid` */
  constructor({ prefix = DEFAULT_PREFIX, ttl = 24 * HOUR, renewMargin = HOUR, ...connection }: EtcdOptions) {
    this.name = `etcd:${connection.endpoints.join(',')} (${prefix})`
    this.#store = { client: new EtcdClient(connection), keys: keysUnder(prefix, ttl), ttl }
    this.#renewMargin = renewMargin
  }

  prepare(signal: AbortSignal): void {
    const reading = this.#beginReading(this.#until(signal))
    const forget = (): void => {
      if (this.#prepared === reading) this.#prepared = undefined
    }
    this.#prepared = reading
    // Whoever asked is told why; then it is read anew.
    reading.contents.catch(forget)
    setTimeout(forget, FRESH).unref()
  }

  async readConfig(signal: AbortSignal): Promise<string | undefined> {
    const prepared = this.#prepared
    const config = prepared?.config
    if (prepared !== undefined && config !== undefined) {
      prepared.config = undefined
      return await config
    }
    // Who asks again could not go on with what was told: it is old.
    this.#prepared = undefined
    const { client, keys } = this.#store
    const { stored } = await list(client, [keys.config], this.#until(signal))
    return stored.get(keys.config.from)?.value
  }

  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const claimed = await this.#claim(this.#until(signal), (known, revision) =>
      planLease(request, known, revision),
    )
    if (this.#watches === 0) this.#read = claimed
    return claimed.lease
  }

  async *watch(signal: AbortSignal): AsyncGenerator<RegistryEvent> {
    this.#watches++
    try {
      yield* this.#events(this.#until(signal))
    } finally {
      this.#watches--
    }
  }

  async *#events(signal: AbortSignal): AsyncGenerator<RegistryEvent> {
    const { keys } = this.#store
    const { ticks, snapshots, listed } = this.#follow(signal)
    let begun = listed
    /** The reasons of this outage that were given. */
    const reasons = new Set<string>()
    let config: string | undefined
    let incarnation = ''
    for await (const tick of ticks) {
      if (tick.kind === 'unavailable') {
        if (!reasons.has(tick.reason)) yield tick
        reasons.add(tick.reason)
        continue
      }
      let next: Taken
      if (tick.kind === 'contents') {
        config = tick.stored.get(keys.config.from)?.value
        incarnation = tick.incarnation
        next =
          tick.stored === begun
            ? snapshots.begin({ incarnation, config })
            : snapshots.take({ incarnation, config, entries: keys.entries(tick.stored.values()) }, 0)
        begun = undefined
      } else {
        if (tick.changes.has(keys.config.from)) config = tick.changes.get(keys.config.from)?.value
        next = snapshots.change(keys.changes(tick.changes), { incarnation, config })
      }
      const recovered = reasons.size > 0
      reasons.clear()
      if (recovered || next.news) yield next.snapshot
    }
  }

  /** Begins with what the last claim read, if nothing has begun with it before. */
  #follow(signal: AbortSignal): {
    readonly ticks: AsyncIterable<Tick>
    readonly snapshots: Snapshots<EtcdEntry>
    readonly listed: Listing['stored'] | undefined
  } {
    const { client, keys } = this.#store
    const spans = [keys.config, keys.subnets]
    const { listing, known } = this.#read ?? {}
    this.#read = undefined
    const ticks = gather((until) => follow(client, spans, until, listing), signal)
    return { ticks, snapshots: new Snapshots(known), listed: listing?.stored }
  }

  hold(lease: Lease, signal: AbortSignal): Promise<'lost' | 'released'> {
    return holdLease(this.#store, lease, this.#renewMargin, this.#until(signal))
  }

  async putConfig(text: string): Promise<void> {
    const { client, keys } = this.#store
    const request = PutRequest.create({ key: Buffer.from(keys.config.from), value: Buffer.from(text) })
    await client.call(KV.put, request, this.#closed.signal)
  }

  async reserve(subnets: PerFamily<Prefix>, publicIps: PerFamily<Ip>): Promise<Lease> {
    const { lease } = await this.#claim(this.#closed.signal, (known, revision) => {
      const { attributes, held } = planReservation(known, subnets, publicIps)
      return { subnets, attributes, held, reserved: true, removed: [], revision }
    })
    return lease
  }

  async release(subnet: Prefix): Promise<void> {
    const { client, keys } = this.#store
    const { signal } = this.#closed
    const { stored } = await list(client, [keys.subnets], signal)
    const found = keys
      .entries(stored.values())
      .filter((entry) => Object.values(entrySubnets(entry)).includes(subnet))
    if (found.length === 0) throw new RegistryError('not-found', `there is no lease of ${subnet}`)
    await commit(
      client,
      [],
      found.map((entry) => remove(entry.stored)),
      signal,
    )
    for (const entry of found) await tidy(discard(client, entry.stored.lease, signal))
  }

  async close(): Promise<void> {
    this.#closed.abort()
    this.#store.client.close()
  }

  /** Decides and writes, again while others are faster. The listing is as after the writing. */
  async #claim(
    signal: AbortSignal,
    plan: (known: readonly Known<EtcdEntry>[], revision: number) => Claim,
  ): Promise<Claimed> {
    for (let round = 0; round < ROUNDS; round++) {
      const { listing, known } = await this.#contents(signal)
      const claim = plan([...known.values()], listing.revision)
      const written = await writeClaim(this.#store, claim, signal)
      if (written !== undefined) {
        const { lease, stored } = written
        for (const { key } of claim.removed) known.delete(key)
        known.set(lease.key, { entry: this.#store.keys.entryOf(stored), result: lease })
        return { lease, listing: after(listing, claim, stored), known }
      }
      await pause(randomInt(10, 100), signal)
    }
    throw new RegistryError('unavailable', `${this.name}: other hosts took each subnet that was tried`)
  }

  /** What was asked for beforehand, once; else what is there now. */
  #contents(signal: AbortSignal): Promise<Contents> {
    const { contents } = this.#prepared ?? this.#beginReading(signal)
    this.#prepared = undefined
    return contents
  }

  #beginReading(signal: AbortSignal): Reading {
    const { client, keys } = this.#store
    const config = Promise.withResolvers<string | undefined>()
    const known = new Map<string, Known<EtcdEntry>>()
    const visit = (stored: Stored): void => {
      if (!keys.isLease(stored.key)) return config.resolve(stored.value)
      const entry = keys.entryOf(stored)
      known.set(entry.key, { entry, result: tryDecode(entry) })
    }
    const contents = list(client, [keys.config, keys.subnets], signal, { visit }).then((listing) => {
      config.resolve(undefined)
      return { listing, known }
    })
    contents.catch(config.reject)
    // It may be that nobody asks for it.
    config.promise.catch(() => undefined)
    return { config: config.promise, contents }
  }

  #until(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closed.signal])
  }
}

/** What was read, as it is after the claim. A watch from its revision on tells what others wrote meanwhile. */
function after({ stored, ...listing }: Listing, { removed }: Claim, written: Stored): Listing {
  for (const entry of removed) stored.delete(entry.stored.key)
  stored.set(written.key, written)
  const alone = written.modified === listing.revision + 1
  return { ...listing, stored, revision: alone ? written.modified : listing.revision }
}

function planLease(
  { config, attributes, previous, current }: LeaseRequest,
  known: readonly Known<EtcdEntry>[],
  revision: number,
): Claim {
  const { leases, unreadable } = readLeases(known)
  const choice = chooseSubnets({
    ranges: config.ranges,
    publicIps: attributes.publicIps,
    previous,
    current,
    leases,
    unreadable,
    random: (limit) => randomInt(limit),
  })
  if (choice.kind === 'out-of-subnets') throw new RegistryError('out-of-subnets', choice.message)
  const entryOf = (lease: Lease): EtcdEntry | undefined => known.find(({ result }) => result === lease)?.entry
  const removed = choice.remove.flatMap((lease) => entryOf(lease) ?? [])
  if (choice.kind === 'take') {
    return { subnets: choice.subnets, attributes, held: undefined, reserved: false, removed, revision }
  }
  const { subnets, key, expires } = choice.lease
  const found = entryOf(choice.lease)
  const rest = { subnets, attributes, reserved: expires === undefined, revision }
  // Under a key that is spelled otherwise than others would look for it, it is written anew.
  if (found === undefined || found.key === key) return { ...rest, held: found, removed }
  return { ...rest, held: undefined, removed: [...removed, found] }
}
