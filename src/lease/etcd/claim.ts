/** A lease that is written: one transaction, which comes to nothing if somebody else was faster. */

import type { PerFamily } from '../../address/ip.ts'
import type { Prefix } from '../../address/prefix.ts'
import { decodeEntry, overlaps } from '../entries.ts'
import { encodeLeaseValue, formatLeaseKey, type Lease, type LeaseAttributes } from '../lease.ts'
import { RegistryError } from '../registry.ts'
import type { EtcdClient } from './client.ts'
import type { EtcdEntry, Keys } from './keys.ts'
import { KV } from './methods.ts'
import type { Stored } from './range.ts'
import { RangeRequest } from './rpc.ts'
import { discard, grant, keepAlive, revoke, type Term, WITHOUT_END } from './term.ts'
import { commit, nothingNew, put, remove, unchanged } from './transaction.ts'

export interface Store {
  readonly client: EtcdClient
  readonly keys: Keys
  /** Of a new lease, in milliseconds. */
  readonly ttl: number
}

export interface Claim {
  readonly subnets: PerFamily<Prefix>
  readonly attributes: LeaseAttributes
  readonly reserved: boolean
  /** The entry under that key; undefined: it is to be created. */
  readonly held: EtcdEntry | undefined
  /** Other entries of this host, which give way. */
  readonly removed: readonly EtcdEntry[]
  /** Of the store when all this was decided. */
  readonly revision: number
}

/** A claim that was written. */
export interface Written {
  readonly lease: Lease
  readonly stored: Stored
}

/**
 * Undefined: somebody else was faster, and all is to be decided anew. Leaves no etcd lease without a key behind.
 * @throws {RegistryError}
 */
export async function writeClaim(
  store: Store,
  claim: Claim,
  signal: AbortSignal,
): Promise<Written | undefined> {
  const { client } = store
  const { held, removed } = claim
  const term = await termFor(store, claim, signal)
  let written: Written | undefined
  try {
    written = await write(store, claim, term, signal)
  } finally {
    // Takes the key with it, should a call have written it that seemed to fail.
    const fresh = term.id !== 0n && term.id !== held?.stored.lease
    if (written === undefined && fresh) await tidy(revoke(client, term.id, new AbortController().signal))
  }
  if (written === undefined) return undefined
  for (const { stored } of held === undefined ? removed : [held, ...removed]) {
    if (stored.lease !== term.id) await tidy(discard(client, stored.lease, signal))
  }
  return written
}

async function termFor(
  { client, ttl }: Store,
  { held, reserved }: Claim,
  signal: AbortSignal,
): Promise<Term> {
  if (reserved) return WITHOUT_END
  const kept = held && (await keepAlive(client, held.stored.lease, signal))
  return kept ?? grant(client, ttl, signal)
}

async function write(
  store: Store,
  claim: Claim,
  term: Term,
  signal: AbortSignal,
): Promise<Written | undefined> {
  const { client, keys } = store
  const { subnets, attributes, held, revision } = claim
  const key = keys.keyOf(subnets)
  const value = encodeLeaseValue(attributes)
  const guard = held === undefined ? nothingNew(keys.rivalsOf(subnets), revision) : unchanged(held.stored)
  const gone = claim.removed.map(({ stored }) => stored)
  const compare = [guard, ...gone.map(unchanged)]
  const modified = await commit(client, compare, [put(key, value, term.id), ...gone.map(remove)], signal)
  if (modified === undefined) return undefined
  const created = held?.stored.created ?? modified
  if (held === undefined && (await isContested(store, claim, created, signal))) {
    // One with a lease goes with it.
    if (claim.reserved)
      await commit(client, [unchanged({ key, modified: created })], [remove({ key })], signal)
    return undefined
  }
  const lease = decodeEntry({ key: formatLeaseKey(subnets), value, expires: term.expires, created })
  return { lease, stored: { key, value, created, modified, lease: term.id, seen: Date.now() } }
}

/**
 * Whether an older lease than ours, created since all was decided, has an address of ours. The guard of the transaction
 * looks at those with our IPv4 subnet; the others have no place in the order of keys where it could look for them: they
 * have another length, or our IPv6 subnet beside another IPv4 subnet. Of two hosts both look, and the younger gives way.
 */
async function isContested(
  { client, keys }: Store,
  { subnets, revision }: Claim,
  created: number,
  signal: AbortSignal,
): Promise<boolean> {
  // Nothing at all was written in between. The question below makes etcd look at every lease.
  if (created === revision + 1) return false
  const { from, to = '' } = keys.subnets
  const request = RangeRequest.create({
    key: Buffer.from(from),
    rangeEnd: Buffer.from(to),
    minCreateRevision: BigInt(revision + 1),
  })
  const { kvs } = await client.call(KV.range, request, signal)
  return kvs.some(
    ({ key, createRevision }) =>
      Number(createRevision) < created && overlaps({ key: key.toString() }, subnets),
  )
}

/** What is left behind when this fails expires by itself. */
export async function tidy(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
  }
}
