/** Canned desired states of one host, from nothing to odd: every law of the diff is tried on every pair of them. */

import { parseIp } from '../src/address/ip.ts'
import { localMac, type Mac } from '../src/address/mac.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import type { Backend } from '../src/backend/backend.ts'
import { hostGw } from '../src/backend/host-gw.ts'
import { vxlan } from '../src/backend/vxlan.ts'
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
export function cannedStates(lower: number, families: 'inet' | 'both'): State[] {
  const state = (name: string, settings: object, leases: readonly Lease[]): State =>
    makeState(name, { lower, families, settings, leases })
  const peers = (...numbers: number[]): Lease[] => numbers.map((n) => lease(n, mac(n)))
  return [
    state('no peer', {}, []),
    state('one peer', {}, peers(11)),
    state('three peers', {}, peers(11, 12, 13)),
    state('another three', {}, peers(13, 14, 15)),
    state('a peer with a new MAC', {}, [lease(11, mac(99)), ...peers(12)]),
    state('a peer with a new public IP', {}, [lease(11, mac(11), 99), ...peers(12)]),
    state('two peers with their MACs exchanged', {}, [lease(11, mac(12)), lease(12, mac(11))]),
    state('a host with two leases', {}, [lease(11, mac(11)), lease(21, mac(11), 11)]),
    state('learning, a smaller MTU', { Learning: true, MTU: 1400 }, peers(11, 12)),
    state('another port', { Port: 4789 }, peers(11, 12)),
    state('L3 miss, one peer', { L3Miss: true }, peers(11)),
    state('L3 miss, three peers', { L3Miss: true }, peers(11, 12, 13)),
    state('direct routing, two of three on the link', { DirectRouting: true }, peers(11, 12, 13)),
    state('L3 miss and direct routing', { L3Miss: true, DirectRouting: true }, peers(11, 12, 13)),
    state('L3 and L2 miss, three peers', { L3Miss: true, L2Miss: true }, peers(11, 12, 13)),
    state('a group, two peers', { Group: '239.1.1.1', GroupV6: 'ff05::1' }, peers(11, 12)),
    state('host-gw, three peers', { Type: 'host-gw' }, peers(11, 12, 13)),
  ]
}

interface Setting {
  readonly lower: number
  readonly families: 'inet' | 'both'
  readonly settings: object
  readonly leases: readonly Lease[]
}

const ADDRESSES = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00::10') }

function makeState(name: string, { lower, families, settings, leases }: Setting): State {
  const config = parseNetworkConfig(
    JSON.stringify({
      Network: '10.10.0.0/16',
      ...(families === 'both' && { EnableIPv6: true, IPv6Network: 'fd10::/48' }),
      Backend: { Type: 'vxlan', ...settings },
    }),
  )
  const backend = (config.backend.type === 'host-gw' ? hostGw : vxlan)(config, {
    external: { name: 'eth0', index: lower, mtu: 1500, addresses: ADDRESSES },
    publicIps: ADDRESSES,
    links: new Map([
      ['flannel.1', { mac: undefined, addresses: [parseIp('10.10.10.0')] }],
      ['flannel-v6.1', { mac: undefined, addresses: [parseIp('fd10:0:0:10::')] }],
    ]),
    underlay: [
      { prefix: parsePrefix('192.168.1.0/24'), direct: true },
      { prefix: parsePrefix('192.168.1.12/32'), direct: false },
      { prefix: parsePrefix('fd00::/64'), direct: true },
    ],
  })
  return { name, backend, shares: [backend.own(SELF), ...leases.map((peer) => backend.peer(peer))] }
}

/** With both families; the VTEP MAC of the second differs from that of the first in one byte. */
function lease(n: number, vtepMac: Mac, host = n): Lease {
  return {
    key: `10.10.${n}.0-24&fd10:0:0:${n}::-64` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`), inet6: parsePrefix(`fd10:0:0:${n}::/64`) },
    publicIps: { inet: parseIp(`192.168.1.${host}`), inet6: parseIp(`fd00::${host}`) },
    backendType: 'vxlan',
    backendData: {
      inet: { VNI: 1, VtepMAC: vtepMac },
      inet6: { VNI: 1, VtepMAC: vtepMac.replace('02:', '06:') },
    },
    expires: undefined,
    created: n,
  }
}

function mac(n: number): Mac {
  return localMac(Uint8Array.of(2, 0, 0, 0, 1, n))
}
