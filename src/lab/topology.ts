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
 */

import { join } from 'node:path'
import { type Ip, ipFromNumber, ipToNumber } from '../address/ip.ts'
import { type Prefix, prefixBase, parsePrefix } from '../address/prefix.ts'

/** Where its hosts keep their leases. */
export const LAB_REGISTRIES = ['sqlite', 'etcd'] as const
export type LabRegistry = (typeof LAB_REGISTRIES)[number]

export interface Lab {
  readonly name: string
  readonly registry: LabRegistry
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
  /** 192.168.1.10 and on. */
  readonly publicIp: Ip
  /** 10.10.10.0/24 and on: reserved for this host where the network config has it. */
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
export const UNDERLAY_IP = '192.168.1.1' as Ip
/** host-A to host-Z. */
export const MAX_HOSTS = 26

const FIRST_PUBLIC_IP = ipToNumber('192.168.1.10' as Ip)
const FIRST_SUBNET = ipToNumber('10.10.10.0' as Ip)
const NAME = /^[a-z0-9]{1,20}$/

/** @throws {LabError} */
export function planLab(name: string, hostCount: number, registry: LabRegistry = 'sqlite'): Lab {
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
    directory,
    registryPath: join(directory, 'registry.db'),
    underlay: inLab('underlay'),
    hosts: Array.from({ length: hostCount }, (_, i) => {
      const host = inLab(`host-${String.fromCharCode(65 + i)}`)
      return {
        ...host,
        publicIp: ipFromNumber(FIRST_PUBLIC_IP + BigInt(i), 'inet'),
        subnet: parsePrefix(`${ipFromNumber(FIRST_SUBNET + 256n * BigInt(i), 'inet')}/24`),
        container: inLab(`c${i + 1}`),
        subnetFile: join(directory, host.name, 'subnet.env'),
        logFile: join(directory, host.name, 'agent.log'),
      }
    }),
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
  return { gateway: ipFromNumber(base + 1n, 'inet'), container: ipFromNumber(base + 2n, 'inet') }
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
