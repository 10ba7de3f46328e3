/** Makes the machines of a lab: namespaces, the underlay between the hosts, and a container on each host. */

import { readFile } from 'node:fs/promises'
import { parseEnv } from 'node:util'
import { type Ip, ipFamily } from '../address/ip.ts'
import { parsePrefix, prefixLength } from '../address/prefix.ts'
import { ipBatch, run } from './command.ts'
import {
  allNamespaces,
  containerAddresses,
  type Lab,
  LabError,
  type LabHost,
  type Namespace,
  UNDERLAY_LENGTHS,
} from './topology.ts'

/** Both ends of every veth pair are made where they belong: nothing passes through the machine's own namespace. */
export async function buildUnderlay(lab: Lab): Promise<void> {
  for (const namespace of allNamespaces(lab)) {
    await run('ip', ['netns', 'add', namespace.namespace])
    // Until a link knows that its link-local address is its own, 1 to 2 s, a router asks nobody on it for a neighbour.
    if (lab.family !== 'inet') await writeSysctl(namespace, 'net/ipv6/conf/default/accept_dad', '0')
  }
  await ipBatch(lab.underlay.namespace, ['link set lo up', 'link add br0 type bridge', 'link set br0 up'])
  for (const host of lab.hosts) await buildHost(lab, host)
}

/** What a host has in its namespace, which is empty: its wire to the underlay. */
export async function buildHost({ underlay }: Lab, host: LabHost): Promise<void> {
  await ipBatch(host.namespace, [
    'link set lo up',
    `link add eth0 type veth peer name ${host.name} netns ${underlay.namespace}`,
    ...Object.values(host.publicIps).map((ip) => addAddress(ip, UNDERLAY_LENGTHS[ipFamily(ip)], 'eth0')),
    'link set eth0 up',
  ])
  await ipBatch(underlay.namespace, [`link set ${host.name} master br0 up`])
  await writeSysctl(host, 'net/ipv4/ip_forward', '1')
  if (host.publicIps.inet6 !== undefined) await writeSysctl(host, 'net/ipv6/conf/all/forwarding', '1')
}

/** What Docker does with subnet.env: a bridge with the first address, containers behind it, the MTU on all of them. */
export async function attachContainer(host: LabHost): Promise<void> {
  const { name, namespace } = host.container
  const { FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU } = parseEnv(
    await readFile(host.subnetFile, 'utf8'),
  )
  const subnets = [FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET].flatMap((text) =>
    text === undefined ? [] : parsePrefix(text),
  )
  if (subnets.length === 0 || FLANNEL_MTU === undefined) {
    throw new LabError(`${host.subnetFile} has no subnet or no FLANNEL_MTU`)
  }
  const plans = subnets.map((subnet) => ({ ...containerAddresses(subnet), length: prefixLength(subnet) }))
  await ipBatch(host.namespace, [
    `link add docker0 mtu ${FLANNEL_MTU} type bridge`,
    ...plans.map(({ gateway, length }) => addAddress(gateway, length, 'docker0')),
    `link add ${name} mtu ${FLANNEL_MTU} type veth peer name eth0 mtu ${FLANNEL_MTU} netns ${namespace}`,
    `link set ${name} master docker0 up`,
    'link set docker0 up',
  ])
  await ipBatch(namespace, [
    'link set lo up',
    ...plans.map(({ container, length }) => addAddress(container, length, 'eth0')),
    'link set eth0 up',
    ...plans.map(({ gateway }) => `route add default via ${gateway}`),
  ])
}

/** An IPv6 address is used at once, without a look for another host that has it. */
export function addAddress(ip: Ip, length: number, link: string): string {
  return `address replace ${ip}/${length} dev ${link}${ipFamily(ip) === 'inet6' ? ' nodad' : ''}`
}

/** @param name With slashes: `net/ipv4/ip_forward`. */
export async function writeSysctl(where: Namespace, name: string, value: string): Promise<void> {
  await run('nsenter', [`--net=${where.path}`, 'sh', '-c', `echo ${value} > /proc/sys/${name}`])
}
