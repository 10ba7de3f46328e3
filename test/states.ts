/** Canned desired states of one host, from nothing to odd: every law of the diff is tried on every pair of them. */

import { parseIp } from '../src/address/ip.ts'
import { localMac, type Mac } from '../src/address/mac.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import type { Backend, HostFacts } from '../src/backend/backend.ts'
import { createBackend } from '../src/backend/table.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'
import type { Lease, LeaseKey } from '../src/lease/lease.ts'
import type { Share } from '../src/state.ts'

const SELF = lease(10, mac(10))

export interface State {
  readonly name: string
  readonly backend: Backend
  readonly shares: readonly Share[]
}

/** @param lower Index of the external interface. */
export function cannedStates(lower: number): State[] {
  const peers = (...numbers: number[]): Lease[] => numbers.map((n) => lease(n, mac(n)))
  return [
    state('no peer', lower, {}, []),
    state('one peer', lower, {}, peers(11)),
    state('three peers', lower, {}, peers(11, 12, 13)),
    state('another three', lower, {}, peers(13, 14, 15)),
    state('a peer with a new MAC', lower, {}, [lease(11, mac(99)), ...peers(12)]),
    state('a peer with a new public IP', lower, {}, [lease(11, mac(11), 99), ...peers(12)]),
    state('two peers with their MACs exchanged', lower, {}, [lease(11, mac(12)), lease(12, mac(11))]),
    state('a host with two leases', lower, {}, [lease(11, mac(11)), lease(21, mac(11), 11)]),
    state('learning, a smaller MTU', lower, { Learning: true, MTU: 1400 }, peers(11, 12)),
    state('another port', lower, { Port: 4789 }, peers(11, 12)),
    state('L3 miss, one peer', lower, { L3Miss: true }, peers(11)),
    state('L3 miss, three peers', lower, { L3Miss: true }, peers(11, 12, 13)),
  ]
}

function state(name: string, lower: number, settings: object, leases: readonly Lease[]): State {
  const config = parseNetworkConfig(
    JSON.stringify({ Network: '10.10.0.0/16', Backend: { Type: 'vxlan', ...settings } }),
  )
  const inet = parseIp('192.168.1.10')
  const host: HostFacts = {
    external: { name: 'eth0', index: lower, mtu: 1500, addresses: { inet } },
    publicIps: { inet },
    links: new Map(),
  }
  const backend = createBackend(config, host)
  return { name, backend, shares: [backend.own(SELF), ...leases.map((peer) => backend.peer(peer))] }
}

function lease(n: number, vtepMac: Mac, host = n): Lease {
  return {
    key: `10.10.${n}.0-24` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(`192.168.1.${host}`) },
    backendType: 'vxlan',
    backendData: { inet: { VNI: 1, VtepMAC: vtepMac } },
    expires: undefined,
    created: n,
  }
}

function mac(n: number): Mac {
  return localMac(Uint8Array.of(2, 0, 0, 0, 1, n))
}
