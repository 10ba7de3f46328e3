/** The leases of etcd: what takes a key away when its host no longer renews it. */

import type { EtcdClient } from './client.ts'
import { LEASE } from './methods.ts'
import {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseRevokeRequest,
  LeaseTimeToLiveRequest,
} from './rpc.ts'

/** An etcd lease as of its last renewal. `id` 0: none. Times in milliseconds, `expires` since the epoch. */
export interface Term {
  readonly id: bigint
  readonly ttl: number
  readonly expires: number | undefined
}

/** That of a reservation. */
export const WITHOUT_END: Term = { id: 0n, ttl: Number.POSITIVE_INFINITY, expires: undefined }

export async function grant(client: EtcdClient, ttl: number, signal: AbortSignal): Promise<Term> {
  const asked = Date.now()
  const request = LeaseGrantRequest.create({ ttl: BigInt(Math.ceil(ttl / 1000)) })
  const granted = await client.call(LEASE.grant, request, signal)
  return termOf(granted.id, granted.ttl, asked)
}

/** Undefined when there is no such lease. */
export async function keepAlive(
  client: EtcdClient,
  id: bigint,
  signal: AbortSignal,
): Promise<Term | undefined> {
  const asked = Date.now()
  const request = LeaseKeepAliveRequest.create({ id })
  const { ttl } = await client.call(LEASE.keepAlive, request, signal)
  return ttl > 0n ? termOf(id, ttl, asked) : undefined
}

/** Ends a lease, and removes its keys. */
export async function revoke(client: EtcdClient, id: bigint, signal: AbortSignal): Promise<void> {
  await client.call(LEASE.revoke, LeaseRevokeRequest.create({ id }), signal)
}

/** Ends a lease that was left: unless it has a key, which somebody else then gave it. */
export async function discard(client: EtcdClient, id: bigint, signal: AbortSignal): Promise<void> {
  if (id === 0n) return
  const request = LeaseTimeToLiveRequest.create({ id, keys: true })
  const { keys } = await client.call(LEASE.timeToLive, request, signal)
  if (keys.length === 0) await revoke(client, id, signal)
}

/** @param asked When the call began: the lease ends no earlier than counted from then. */
function termOf(id: bigint, seconds: bigint, asked: number): Term {
  const ttl = Number(seconds) * 1000
  return { id, ttl, expires: asked + ttl }
}
