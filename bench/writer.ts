/**
 * Who writes into etcd: a process inside the underlay, where etcd is, told by messages what to do (`stage.ts`). It uses
 * tweed's client, and holds all leases by one etcd lease, as a test of thousands of hosts must.
 *
 *     node writer.ts ENDPOINT PREFIX
 */

import { EtcdClient } from '../src/lease/etcd/client.ts'
import { KV } from '../src/lease/etcd/methods.ts'
import { DeleteRangeRequest, PutRequest, RequestOp } from '../src/lease/etcd/rpc.ts'
import { grant } from '../src/lease/etcd/term.ts'
import { commit, put } from '../src/lease/etcd/transaction.ts'
import { type BackendSettings, networkConfig, peer } from './network.ts'

/** What it can be told. Peers are numbers. */
export type Order =
  | { readonly kind: 'config'; readonly backend: BackendSettings }
  | { readonly kind: 'put'; readonly from: number; readonly to: number }
  | { readonly kind: 'delete'; readonly peer: number }
  /** Everything goes. */
  | { readonly kind: 'clear' }

/** When it was begun and done: nanoseconds of CLOCK_MONOTONIC, as decimal digits. */
export interface Done {
  readonly id: number
  readonly began: string
  readonly ended: string
  readonly error?: string
}

const DAY = 86_400_000
/** etcd takes 128 operations in one transaction. */
const BATCH = 100
/** Transactions under way. */
const IN_FLIGHT = 16

const [endpoint = '', prefix = ''] = process.argv.slice(2)
const client = new EtcdClient({ endpoints: [endpoint] })
const { signal } = new AbortController()
let term: Promise<{ readonly id: bigint }> | undefined

async function carryOut(order: Order): Promise<void> {
  switch (order.kind) {
    case 'config': {
      const config = {
        key: Buffer.from(`${prefix}/config`),
        value: Buffer.from(networkConfig(order.backend)),
      }
      await client.call(KV.put, PutRequest.create(config), signal)
      return
    }
    case 'put':
      return putPeers(order.from, order.to)
    case 'delete':
      return remove(`${prefix}/subnets/${peer(order.peer).key}`, '')
    case 'clear':
      return remove(`${prefix}/`, `${prefix}0`)
    default:
      order satisfies never
  }
}

async function putPeers(from: number, to: number): Promise<void> {
  term ??= grant(client, DAY, signal)
  const { id } = await term
  const starts = Array.from({ length: Math.ceil((to - from + 1) / BATCH) }, (_, i) => from + i * BATCH)
  const work = async (): Promise<void> => {
    for (let start = starts.shift(); start !== undefined; start = starts.shift()) {
      const numbers = Array.from({ length: Math.min(BATCH, to - start + 1) }, (_, i) => (start ?? 0) + i)
      const operations = numbers.map((n) => put(`${prefix}/subnets/${peer(n).key}`, peer(n).value, id))
      await commit(client, [], operations, signal)
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, work))
}

async function remove(key: string, rangeEnd: string): Promise<void> {
  const range = DeleteRangeRequest.create({ key: Buffer.from(key), rangeEnd: Buffer.from(rangeEnd) })
  await commit(client, [], [RequestOp.create({ request: { $case: 'delete', delete: range } })], signal)
}

process.on('message', ({ id, order }: { readonly id: number; readonly order: Order }) => {
  const began = process.hrtime.bigint()
  const answer = (error?: Error): void => {
    const times = { began: `${began}`, ended: `${process.hrtime.bigint()}` }
    process.send?.({ id, ...times, ...(error !== undefined && { error: error.message }) } satisfies Done)
  }
  carryOut(order).then(() => answer(), answer)
})
process.on('disconnect', () => client.close())
