/** Transactions, and their parts. */

import { type EtcdClient, statusOf } from './client.ts'
import type { Span } from './follow.ts'
import { status } from './grpc.ts'
import { KV } from './methods.ts'
import type { Stored } from './range.ts'
import { Compare, RequestOp, TxnRequest } from './rpc.ts'

const LESS = 2
const CREATE = 1
const MOD = 2

/**
 * The revision of the store that has it; undefined when a comparison does not hold, or an etcd lease that was named is
 * no more. @throws {RegistryError}
 */
export async function commit(
  client: EtcdClient,
  compare: Compare[],
  success: RequestOp[],
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const { succeeded, header } = await client.call(KV.txn, TxnRequest.create({ compare, success }), signal)
    return succeeded ? Number(header?.revision) : undefined
  } catch (error) {
    if (statusOf(error) === status.NOT_FOUND) return undefined
    throw error
  }
}

/** Nobody wrote the key since it was read. */
export function unchanged({ key, modified }: Pick<Stored, 'key' | 'modified'>): Compare {
  return Compare.create({
    target: MOD,
    key: Buffer.from(key),
    targetUnion: { $case: 'modRevision', modRevision: BigInt(modified) },
  })
}

/** No key of the span was created after that revision. */
export function nothingNew({ from, to }: Span, revision: number): Compare {
  return Compare.create({
    result: LESS,
    target: CREATE,
    key: Buffer.from(from),
    rangeEnd: Buffer.from(to ?? ''),
    targetUnion: { $case: 'createRevision', createRevision: BigInt(revision + 1) },
  })
}

/** @param lease 0: the key stays until it is removed. */
export function put(key: string, value: string, lease: bigint): RequestOp {
  return RequestOp.create({
    request: { $case: 'put', put: { key: Buffer.from(key), value: Buffer.from(value), lease } },
  })
}

export function remove({ key }: Pick<Stored, 'key'>): RequestOp {
  return RequestOp.create({ request: { $case: 'delete', delete: { key: Buffer.from(key) } } })
}
