/**
 * The shape of a lab. Everything has its name and address from the lab's name and a number: nothing needs to be
 * remembered to find it again, and two labs never meet.
 *
 *      c1 10.10.10.2               c2 10.10.11.2                  each box is a network namespace
 *       │ eth0                      │ eth0                        called tweed-lab-<lab>-<name>
 *   ┌───┴── host-A ─────────┐   ┌───┴── host-B ─────────┐
 *   │ docker0 10.10.10.1/24 │   │ docker0 10.10.11.1/24 │
 *   │ flannel.1 (the agent) │   │ flannel.1 (the agent) │
 *   │ eth0 192.168.1.10/24  │   │ eth0 192.168.1.11/24  │
 *   └───┬───────────────────┘   └───┬───────────────────┘
 *     ┌─┴───────── underlay ────────┴─┐
 *     │ br0, one port for each host   │
 *     └───────────────────────────────┘
 *
 * An IPv6 lab has the same shape: host-A has fd00:192::10 and fd00:10:10:10::/64, with its decimal numbers as digits.
 */

import { join } from 'node:path'
import { type Family, type Ip, ipFromNumber, ipToNumber, type PerFamily, parseIp } from '../address/ip.ts'
import { type Prefix, parsePrefix, prefixBase, prefixFamily } from '../address/prefix.ts'

/** Where its hosts keep their leases. */
export const LAB_REGISTRIES = ['sqlite', 'etcd'] as const
export type LabRegistry = (typeof LAB_REGISTRIES)[number]

/** Which addresses its hosts and containers have. */
export const LAB_FAMILIES = ['inet', 'inet6', 'dual'] as const
export type LabFamily = (typeof LAB_FAMILIES)[number]

export interface Lab {
  readonly name: string
  readonly registry: LabRegistry
  readonly family: LabFamily
  /** The registry, the agents' logs and files. */
  readonly directory: string
  readonly registryPath: string
  readonly underlay: Namespace
  readonly hosts: readonly LabHost[]
}

/** `name` is what people call it: `host-A`, `c1`. `namespace` is what `ip -n` takes, `path` what nsenter takes. */
export interface Namespace {
  readonly name: string
  readonly namespace: string
  readonly path: string
}

export interface LabHost extends Namespace {
  /** 192.168.1.10 and fd00:192::10, and on. */
  readonly publicIps: PerFamily<Ip>
  /** 10.10.10.0/24 and fd00:10:10:10::/64, and on: reserved for this host where the network config has them. */
  readonly subnets: PerFamily<Prefix>
  /** Of the first family of the lab. */
  readonly publicIp: Ip
  readonly subnet: Prefix
  /** c1 and on. */
  readonly container: Namespace
  readonly subnetFile: string
  readonly logFile: string
}

/** Input of a person that the lab cannot work with, or a state of the machine that it will not touch. */
export class LabError extends Error {
  override readonly name = 'LabError'
}

export const LABS_DIRECTORY = '/run/tweed-lab'
/** Of the underlay itself, where an etcd listens. */
export const UNDERLAY_IP: Ip = parseIp('192.168.1.1')
export const UNDERLAY_IPV6: Ip = parseIp('fd00:192::1')
/** Of the underlay, where its bridge and the hosts' interfaces are. */
export const UNDERLAY_LENGTHS = { inet: 24, inet6: 64 } as const satisfies Record<Family, number>
/** host-A to host-Z. */
export const MAX_HOSTS = 26

const FIRST = 10
const NAME = /^[a-z0-9]{1,20}$/

/** @throws {LabError} */
export function planLab(
  name: string,
  hostCount: number,
  registry: LabRegistry = 'sqlite',
  family: LabFamily = 'inet',
): Lab {
  if (!Number.isInteger(hostCount) || hostCount < 1 || hostCount > MAX_HOSTS) {
    throw new LabError(`a lab has 1 to ${MAX_HOSTS} hosts`)
  }
  const prefix = namespacePrefix(name)
  const directory = join(LABS_DIRECTORY, name)
  const inLab = (member: string): Namespace => ({
    name: member,
    namespace: prefix + member,
    path: join(NAMESPACES, prefix + member),
  })
  return {
    name,
    registry,
    family,
    directory,
    registryPath: join(directory, 'registry.db'),
    underlay: inLab('underlay'),
    hosts: Array.from({ length: hostCount }, (_, i) => {
      const host = inLab(`host-${String.fromCharCode(65 + i)}`)
      return {
        ...host,
        ...addressesOf(FIRST + i, family),
        container: inLab(`c${i + 1}`),
        subnetFile: join(directory, host.name, 'subnet.env'),
        logFile: join(directory, host.name, 'agent.log'),
      }
    }),
  }
}

type Addresses = Pick<LabHost, 'publicIps' | 'subnets' | 'publicIp' | 'subnet'>

/** @param n At most 255 in decimal, which is also read as hexadecimal. */
function addressesOf(n: number, family: LabFamily): Addresses {
  const inet = { publicIp: parseIp(`192.168.1.${n}`), subnet: parsePrefix(`10.10.${n}.0/24`) }
  const inet6 = { publicIp: parseIp(`fd00:192::${n}`), subnet: parsePrefix(`fd00:10:10:${n}::/64`) }
  switch (family) {
    case 'inet':
      return { ...inet, publicIps: { inet: inet.publicIp }, subnets: { inet: inet.subnet } }
    case 'inet6':
      return { ...inet6, publicIps: { inet6: inet6.publicIp }, subnets: { inet6: inet6.subnet } }
    case 'dual':
      return {
        ...inet,
        publicIps: { inet: inet.publicIp, inet6: inet6.publicIp },
        subnets: { inet: inet.subnet, inet6: inet6.subnet },
      }
    default:
      return family satisfies never
  }
}

/** Where iproute2 keeps named namespaces. */
export const NAMESPACES = '/run/netns'

/** No hyphen in the name of a lab: the namespaces of `a` and of `a-b` would begin alike. @throws {LabError} */
export function namespacePrefix(lab: string): string {
  if (NAME.test(lab)) return `tweed-lab-${lab}-`
  throw new LabError(`${JSON.stringify(lab)} cannot name a lab: 1 to 20 of a-z and 0-9`)
}

/** The gateway (docker0) and the container of a subnet: its first two host addresses. */
export function containerAddresses(subnet: Prefix): { readonly gateway: Ip; readonly container: Ip } {
  const base = ipToNumber(prefixBase(subnet))
  const family = prefixFamily(subnet)
  return { gateway: ipFromNumber(base + 1n, family), container: ipFromNumber(base + 2n, family) }
}

export function allNamespaces(lab: Lab): Namespace[] {
  return [lab.underlay, ...lab.hosts.flatMap((host) => [host, host.container])]
}

/** The host or container of that name. @throws {LabError} */
export function findNamespace(lab: Lab, name: string): Namespace {
  const found = allNamespaces(lab).find((namespace) => namespace.name === name)
  if (found !== undefined) return found
  const names = allNamespaces(lab).map((namespace) => namespace.name)
  throw new LabError(`lab ${lab.name} has no ${name}; it has ${names.join(', ')}`)
}
