/** A lease that is written: one transaction, which comes to nothing if somebody else was faster. */

import type { PerFamily } from '../../address/ip.ts'
import type { Prefix } from '../../address/prefix.ts'
import { decodeEntry, overlaps } from '../entries.ts'
import { encodeLeaseValue, formatLeaseKey, type Lease, type LeaseAttributes } from '../lease.ts'
import { RegistryError } from '../registry.ts'
import type { EtcdClient } from './client.ts'
import type { EtcdEntry, Keys } from './keys.ts'
import { KVService, RangeRequest } from './rpc.ts'
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
  readonly revision: bigint
}

/**
 * Undefined: somebody else was faster, and all is to be decided anew. Leaves no etcd lease without a key behind.
 * @throws {RegistryError}
 */
export async function writeClaim(
  store: Store,
  claim: Claim,
  signal: AbortSignal,
): Promise<Lease | undefined> {
  const { client } = store
  const { held, removed } = claim
  const term = await termFor(store, claim, signal)
  let lease: Lease | undefined
  try {
    lease = await write(store, claim, term, signal)
  } finally {
    // Takes the key with it, should a call have written it that seemed to fail.
    const fresh = term.id !== 0n && term.id !== held?.stored.lease
    if (lease === undefined && fresh) await tidy(revoke(client, term.id, new AbortController().signal))
  }
  if (lease === undefined) return undefined
  for (const { stored } of held === undefined ? removed : [held, ...removed]) {
    if (stored.lease !== term.id) await tidy(discard(client, stored.lease, signal))
  }
  return lease
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
): Promise<Lease | undefined> {
  const { client, keys } = store
  const { subnets, attributes, held, revision } = claim
  const key = keys.keyOf(subnets)
  const value = encodeLeaseValue(attributes)
  const guard = held === undefined ? nothingNew(keys.rivalsOf(subnets), revision) : unchanged(held.stored)
  const gone = claim.removed.map(({ stored }) => stored)
  const compare = [guard, ...gone.map(unchanged)]
  const written = await commit(client, compare, [put(key, value, term.id), ...gone.map(remove)], signal)
  if (written === undefined) return undefined
  const created = held?.stored.created ?? written
  if (held === undefined && (await isContested(store, claim, created, signal))) {
    // One with a lease goes with it.
    if (claim.reserved)
      await commit(client, [unchanged({ key, modified: created })], [remove({ key })], signal)
    return undefined
  }
  return decodeEntry({
    key: formatLeaseKey(subnets),
    value,
    expires: term.expires,
    created: Number(created),
  })
}

/**
 * Whether an older lease than ours, created since all was decided, has an address of ours. The guard of the transaction
 * looks at those with our IPv4 subnet; the others have no place in the order of keys where it could look for them: they
 * have another length, or our IPv6 subnet beside another IPv4 subnet. Of two hosts both look, and the younger gives way.
 */
async function isContested(
  { client, keys }: Store,
  { subnets, revision }: Claim,
  created: bigint,
  signal: AbortSignal,
): Promise<boolean> {
  const { from, to = '' } = keys.subnets
  const request = RangeRequest.create({
    key: Buffer.from(from),
    rangeEnd: Buffer.from(to),
    minCreateRevision: revision + 1n,
  })
  const { kvs } = await client.call(KVService.range, request, signal)
  return kvs.some(
    ({ key, createRevision }) => createRevision < created && overlaps({ key: key.toString() }, subnets),
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
