/** What hosts of a lab have in each family, from the config to the packets. */

import assert from 'node:assert/strict'
import type { Family, Ip } from '../../src/address/ip.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabFamily, type LabHost, type Namespace } from '../../src/lab/topology.ts'
import type { Status } from '../../src/status/status.ts'

/** The parts of a config, of subnet.env and of a status that a family brings. */
const PARTS = {
  inet: {
    config: '"Network": "10.10.0.0/16"',
    env: 'FLANNEL_NETWORK=10.10.0.0/16\nFLANNEL_SUBNET=10.10.10.1/24\n',
    status: { network: '10.10.0.0/16', publicIp: '192.168.1.10', link: 'flannel.1' },
    lease: { subnet: '10.10.10.0/24' },
    // eth0 takes 50 bytes less, 70 in IPv6.
    mtu: 1450,
  },
  inet6: {
    config: '"EnableIPv6": true, "IPv6Network": "fd00:10:10::/48"',
    env: 'FLANNEL_IPV6_NETWORK=fd00:10:10::/48\nFLANNEL_IPV6_SUBNET=fd00:10:10:10::1/64\n',
    status: { ipv6Network: 'fd00:10:10::/48', publicIpv6: 'fd00:192::10', ipv6Link: 'flannel-v6.1' },
    lease: { ipv6Subnet: 'fd00:10:10:10::/64' },
    mtu: 1430,
  },
} as const

const NONE = {
  network: '',
  publicIp: '',
  link: '',
  ipv6Network: '',
  publicIpv6: '',
  ipv6Link: '',
}

export const FAMILIES: Readonly<Record<LabFamily, readonly Family[]>> = {
  inet: ['inet'],
  inet6: ['inet6'],
  dual: ['inet', 'inet6'],
}

export function configOf(family: LabFamily): string {
  const parts: string[] = FAMILIES[family].map((each) => PARTS[each].config)
  if (family === 'inet6') parts.unshift('"EnableIPv4": false')
  return `{${parts.join(', ')}, "Backend": {"Type": "vxlan"}}`
}

/** Nothing is lost. */
export async function assertReaches(from: Namespace, destination: Ip): Promise<void> {
  const options = { netns: from.path, destination, count: 5, interval: 20, timeout: 3000 }
  const { lost, errors, replies } = await ping(options)
  assert.deepEqual({ lost, errors, count: replies.length }, { lost: [], errors: [], count: 5 }, destination)
}

export function containersOf(host: LabHost): Ip[] {
  return Object.values(host.subnets).map((subnet) => containerAddresses(subnet).container)
}

/** subnet.env of host-A, as flannel writes it. */
export function subnetEnvOf(family: LabFamily): string {
  const parts = FAMILIES[family].map((each) => PARTS[each])
  const mtu = Math.min(...parts.map((part) => part.mtu))
  return `${parts.map(({ env }) => env).join('')}FLANNEL_MTU=${mtu}\nFLANNEL_IPMASQ=false\n`
}

/** What the status of host-A says of each family, and of no other. */
export function statusOf(family: LabFamily): Partial<Status> {
  const parts = FAMILIES[family].map((each) => PARTS[each])
  const lease = Object.assign({ subnet: '', ipv6Subnet: '' }, ...parts.map((part) => part.lease))
  const status = Object.assign({}, NONE, ...parts.map((part) => part.status))
  return { ...status, lease: { ...lease, expires: null } }
}
