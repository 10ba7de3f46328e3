/** A vxlan network of many peers, for tests that reconcile against a real kernel. */

import { parseIp } from '../../src/address/ip.ts'
import { parseMac } from '../../src/address/mac.ts'
import { parsePrefix } from '../../src/address/prefix.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createBackend } from '../../src/backend/table.ts'
import { parseNetworkConfig } from '../../src/config/network-config.ts'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import type { Lease, LeaseKey } from '../../src/lease/lease.ts'
import type { Host } from './namespace.ts'

export const OWN_MAC = parseMac('02:00:00:00:00:0a')
const SELF_ADDRESS = parseIp('10.10.10.0')

/** The lease of the host with that number: 10.10.<n>.0/24 at 192.168.1.<n>. */
export function lease(n: number, mac = peerMac(n), publicIp = `192.168.1.${n % 256}`): Lease {
  return {
    key: `10.10.${n}.0-24` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(publicIp) },
    backendType: 'vxlan',
    backendData: { inet: { VNI: 1, VtepMAC: mac } },
    expires: undefined,
    created: n,
  }
}

export function peerMac(n: number): string {
  return `02:00:00:00:01:${n.toString(16).padStart(2, '0')}`
}

export const SELF = lease(10, OWN_MAC)

export async function vxlanBackend(host: Host, settings: object = {}): Promise<Backend> {
  const config = parseNetworkConfig(
    JSON.stringify({ Network: '10.10.0.0/16', Backend: { Type: 'vxlan', ...settings } }),
  )
  const index = await host.index('eth0')
  const address = parseIp('192.168.1.10')
  return createBackend(config, {
    external: { name: 'eth0', index, mtu: 1500, addresses: { inet: address } },
    publicIps: { inet: address },
    links: new Map([['flannel.1', { mac: OWN_MAC, addresses: [SELF_ADDRESS] }]]),
  })
}

/** A reconciler whose plan is our own share and that of the peers. */
export async function reconcilerFor(
  host: Host,
  backend: Backend,
  peers: readonly Lease[],
  nexthopObjects?: boolean,
): Promise<Reconciler> {
  const reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path, nexthopObjects })
  reconciler.exchange([], [backend.own(SELF), ...peers.map((peer) => backend.peer(peer))])
  return reconciler
}
