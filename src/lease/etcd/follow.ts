/**
 * Ranges of keys, as they are and as they change: a range, then a watch from the revision after it. A watch that broke
 * goes on after the last revision that it told of; after a compaction, or when the store is another one, only a new
 * range helps. No error ever takes a key away.
 */

import { setImmediate } from 'node:timers/promises'
import { persist } from '../persist.ts'
import { RegistryError, type RegistryUnavailable } from '../registry.ts'
import { type EtcdClient, statusOf } from './client.ts'
import { status } from './grpc.ts'
import { KV, type Method } from './methods.ts'
import { type Page, readPairs, splitPage, type Stored, WireError } from './range.ts'
import { type KeyValue, RangeRequest, WatchCreateRequest, type WatchResponse } from './rpc.ts'

/** The keys from `from` until before `to`; without `to`, the one key. */
export interface Span {
  readonly from: string
  readonly to?: string
}

/** All keys of some spans. */
export interface Listing {
  readonly cluster: bigint
  /** Of the store, when the keys were read. */
  readonly revision: number
  readonly stored: Map<string, Stored>
}

export type Tick =
  | { readonly kind: 'contents'; readonly incarnation: string; readonly stored: ReadonlyMap<string, Stored> }
  /** Undefined for a key that is gone. With nothing in it: the connection is back, and nothing happened. */
  | { readonly kind: 'changes'; readonly changes: ReadonlyMap<string, Stored | undefined> }
  | RegistryUnavailable

/**
 * Keys in one answer. It bounds what is held twice while it is decoded; and etcd looks at all keys for each page, so that
 * small ones are dear (40,000 keys: 184 ms by the thousand, 115 ms by five thousand).
 */
const PAGE = 2500n

const DELETE = 1

/** A range whose pairs are decoded later. */
const RANGE: Method<RangeRequest, Page> = { ...KV.range, decode: splitPage }

export interface ListOptions {
  /** What is kept as it is where it did not change. */
  readonly known?: ReadonlyMap<string, Stored>
  /** Sees each key as it comes, while etcd makes the next page. */
  readonly visit?: (stored: Stored) => void
}

/** All keys of the spans at one revision. @throws {RegistryError} */
export async function list(
  client: EtcdClient,
  spans: readonly Span[],
  signal: AbortSignal,
  { known, visit }: ListOptions = {},
): Promise<Listing> {
  const stored = new Map<string, Stored>()
  let cluster = 0n
  let revision = 0
  for (const span of spans) {
    for await (const page of pages(client, span, revision, signal)) {
      cluster = page.cluster
      if (revision === 0) revision = page.revision
      for (const fresh of pairsOf(page)) {
        const old = known?.get(fresh.key)
        const kept = old !== undefined && isSame(old, fresh) ? old : fresh
        stored.set(kept.key, kept)
        visit?.(kept)
      }
    }
  }
  return { cluster, revision, stored }
}

/** @throws {RegistryError} when one cannot be read. */
function* pairsOf(page: Page): Generator<Stored> {
  try {
    yield* readPairs(page, Date.now())
  } catch (cause) {
    if (!(cause instanceof WireError)) throw cause
    throw new RegistryError('unavailable', `etcd's answer cannot be read: ${cause.message}`, { cause })
  }
}

/** The answers for one span. etcd already makes the next one while the caller works on one. */
async function* pages(
  client: EtcdClient,
  { from, to = '' }: Span,
  atRevision: number,
  signal: AbortSignal,
): AsyncGenerator<Page> {
  const rangeEnd = Buffer.from(to)
  const ask = (key: Buffer, revision: number): Promise<Page> =>
    client.call(
      RANGE,
      RangeRequest.create({ key, rangeEnd, limit: PAGE, revision: BigInt(revision) }),
      signal,
    )
  let next: Promise<Page> | undefined = ask(Buffer.from(from), atRevision)
  while (next !== undefined) {
    const page = await next
    next = undefined
    if (page.more) {
      next = ask(Buffer.concat([page.last, Buffer.of(0)]), atRevision || page.revision)
      // It is awaited only if the caller goes on.
      next.catch(() => undefined)
      // Until the request is on its way.
      await setImmediate()
    }
    yield page
  }
}

/**
 * Ends with the signal, never with an error. The maps that it tells of are its own, and change with the next tick.
 * @param listed What was just read of the spans: it is not read again, and given away.
 */
export async function* follow(
  client: EtcdClient,
  spans: readonly Span[],
  signal: AbortSignal,
  listed?: Listing,
): AsyncGenerator<Tick, void> {
  const followed = new Followed(client, spans, listed)
  yield* persist(async function* (): AsyncGenerator<Tick, void> {
    const first = await followed.synchronise(signal)
    for await (const changes of followed.watch(signal)) {
      yield changes === 'standing' ? first : { kind: 'changes', changes }
    }
  }, signal)
}

/** What is known of the spans, and until when. */
class Followed {
  readonly #client: EtcdClient
  readonly #spans: readonly Span[]
  #cluster = 0n
  #stored = new Map<string, Stored>()
  /** Of each span, the revision until which it is known. */
  #revisions: number[] = []
  /** Whether all of that was told, and etcd may remember what came since. */
  #resumable = false
  /** How often the store was replaced. */
  #replaced = 0

  #listed: Listing | undefined

  constructor(client: EtcdClient, spans: readonly Span[], listed?: Listing) {
    this.#client = client
    this.#spans = spans
    this.#listed = listed
  }

  /** No changes, when the watch can go on where it broke; else the contents. */
  async synchronise(signal: AbortSignal): Promise<Tick> {
    if (await this.#canResume(signal)) return { kind: 'changes', changes: new Map() }
    const before = { cluster: this.#cluster, revision: latest(this.#revisions), stored: this.#stored }
    const now = this.#listed ?? (await list(this.#client, this.#spans, signal, { known: before.stored }))
    this.#listed = undefined
    if (before.revision !== 0 && !isSameStore(before, now)) this.#replaced++
    this.#resumable = false
    this.#cluster = now.cluster
    this.#stored = now.stored
    this.#revisions = this.#spans.map(() => now.revision)
    return {
      kind: 'contents',
      incarnation: `${now.cluster.toString(16)}/${this.#replaced}`,
      stored: now.stored,
    }
  }

  /** Changes, until the watch is to be begun anew. @throws {RegistryError} when it did not come to stand. */
  async *watch(signal: AbortSignal): AsyncGenerator<'standing' | ReadonlyMap<string, Stored | undefined>> {
    // etcd numbers the watches of a stream, and says that they are created, in the order of the requests.
    const ids: bigint[] = []
    let changes = new Map<string, Stored | undefined>()
    try {
      for await (const response of this.#client.watch(this.#requests(), signal)) {
        if (response.canceled) {
          if (response.compactRevision === 0n) throw refused(response)
          this.#resumable = false
          return
        }
        if (response.created) ids.push(response.watchId)
        else this.#apply(response, ids.indexOf(response.watchId), changes)
        // One watch may have something to tell before the last one is created.
        if (ids.length < this.#spans.length) continue
        this.#resumable = true
        if (response.created) yield 'standing'
        if (changes.size > 0) yield changes
        changes = new Map()
      }
    } catch (error) {
      if (ids.length < this.#spans.length || !(error instanceof RegistryError)) throw error
    }
  }

  #requests(): WatchCreateRequest[] {
    return this.#spans.map(({ from, to }, i) =>
      WatchCreateRequest.create({
        key: Buffer.from(from),
        rangeEnd: Buffer.from(to ?? ''),
        startRevision: BigInt((this.#revisions[i] ?? 0) + 1),
        // Else the revision to go on from grows old where nothing happens, and is compacted.
        progressNotify: true,
      }),
    )
  }

  #apply({ events, header }: WatchResponse, span: number, changes: Map<string, Stored | undefined>): void {
    for (const { type, kv } of events) {
      if (kv === undefined) continue
      const stored = type === DELETE ? undefined : toStored(kv)
      const key = kv.key.toString()
      // Written by ourselves, and known already.
      if (stored !== undefined && this.#stored.get(key)?.modified === stored.modified) continue
      changes.set(key, stored)
      if (stored === undefined) this.#stored.delete(key)
      else this.#stored.set(key, stored)
    }
    // Beside events, the header has the store's revision, which a watch that catches up has not reached.
    const revision = events.at(-1)?.kv?.modRevision ?? header?.revision
    if (revision !== undefined) this.#revisions[span] = Number(revision)
  }

  /**
   * Whether the store is the one that was watched, and remembers what came since. A store that was made anew counts its
   * revisions from 1, may have the same cluster id, and by now more revisions than the old one: so it must show the
   * newest key that is known, as it was.
   */
  async #canResume(signal: AbortSignal): Promise<boolean> {
    const newest = [...this.#stored.values()].reduce<Stored | undefined>(newer, undefined)
    if (newest === undefined || !this.#resumable) return false
    const revision = Math.max(Math.min(...this.#revisions), newest.modified)
    const request = RangeRequest.create({ key: Buffer.from(newest.key), revision: BigInt(revision) })
    try {
      const { header, kvs } = await this.#client.call(KV.range, request, signal)
      const [shown] = kvs
      return (
        header?.clusterId === this.#cluster &&
        shown !== undefined &&
        Number(shown.modRevision) === newest.modified &&
        shown.lease === newest.lease &&
        shown.value.toString() === newest.value
      )
    } catch (error) {
      // Compacted, or not reached yet.
      if (statusOf(error) === status.OUT_OF_RANGE) return false
      throw error
    }
  }
}

/** By the leases that both have: etcd gives no id twice. */
function isSameStore(before: Listing, now: Listing): boolean {
  if (now.cluster !== before.cluster || now.revision < before.revision) return false
  const leased = [...before.stored.values()].filter(({ lease }) => lease !== 0n)
  return leased.length === 0 || leased.some(({ key, lease }) => now.stored.get(key)?.lease === lease)
}

function isSame(a: Stored, b: Stored): boolean {
  return a.modified === b.modified && a.lease === b.lease && a.value === b.value
}

function newer(a: Stored | undefined, b: Stored): Stored {
  return a === undefined || b.modified > a.modified ? b : a
}

function latest(revisions: readonly number[]): number {
  return Math.max(0, ...revisions)
}

function refused({ cancelReason }: WatchResponse): RegistryError {
  return new RegistryError('unavailable', `etcd refused the watch: ${cancelReason}`)
}

function toStored({ key, value, createRevision, modRevision, lease }: KeyValue): Stored {
  return {
    key: key.toString(),
    value: value.toString(),
    created: Number(createRevision),
    modified: Number(modRevision),
    lease,
    seen: Date.now(),
  }
}
