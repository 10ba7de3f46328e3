/** What the network config says of vxlan: flannel's settings and two of flannel's past, L3Miss and Group. */

import {
  FAMILIES,
  AddressError,
  type Family,
  type Ip,
  ipFamily,
  isMulticast,
  type PerFamily,
  parseIp,
} from '../address/ip.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import { FAMILY_NAMES, type HostFacts } from './backend.ts'

/** The kernel's own default, which flannel's `Port: 0` means; not IANA's 4789. */
const DEFAULT_PORT = 8472
const GROUPS = {
  inet: { field: 'Group', example: '239.1.1.1' },
  inet6: { field: 'GroupV6', example: 'ff05::1' },
} as const satisfies Record<Family, unknown>

export interface VxlanSettings {
  readonly vni: number
  readonly port: number
  /** Of the outer packets. */
  readonly outerMtu: number
  readonly learning: boolean
  readonly gbp: boolean
  readonly l3Miss: boolean
  /** Whether FDB entries too are answered on demand. */
  readonly l2Miss: boolean
  /** The multicast groups over which the kernel finds peers and learns them; undefined: leases say who they are. */
  readonly groups: PerFamily<Ip> | undefined
  /** Whether a peer on a link of this host gets a route to itself, and no tunnel. */
  readonly directRouting: boolean
  /** Whether the links compute checksums; undefined: as they come. */
  readonly txChecksum: boolean | undefined
}

/** @throws {ConfigError} */
export function readSettings(config: NetworkConfig, host: HostFacts): VxlanSettings {
  const { settings } = config.backend
  const l3Miss = settings.boolean('L3Miss', false)
  const l2Miss = settings.boolean('L2Miss', false)
  const groups = readGroups(config)
  if (l2Miss && !l3Miss) throw new ConfigError('Backend.L2Miss', true, 'it needs L3Miss')
  if (groups !== undefined && l3Miss) {
    throw new ConfigError('Backend.L3Miss', true, 'with a Group the kernel asks the peers, and not the agent')
  }
  return {
    vni: settings.integer('VNI', { min: 1, max: 2 ** 24 - 1, default: 1 }),
    port: settings.integer('Port', { min: 0, max: 65535, default: 0 }) || DEFAULT_PORT,
    outerMtu: settings.integer('MTU', { min: 0, max: 65535, default: 0 }) || host.external.mtu,
    learning: settings.boolean('Learning', groups !== undefined),
    gbp: settings.boolean('GBP', false),
    l3Miss,
    l2Miss,
    groups,
    directRouting: settings.boolean('DirectRouting', false),
    txChecksum: settings.boolean('TxChecksumOffload', undefined),
  }
}

/** A group for each enabled family, or none at all. @throws {ConfigError} */
function readGroups({ ranges, backend: { settings } }: NetworkConfig): PerFamily<Ip> | undefined {
  const groups: Partial<Record<Family, Ip>> = {}
  for (const family of FAMILIES) {
    const { field, example } = GROUPS[family]
    const value = settings.string(field, undefined)
    if (value === undefined || ranges[family] === undefined) continue
    const problem = `it must be a multicast address of ${FAMILY_NAMES[family]}, such as ${example}`
    const group = readGroup(value, family)
    if (group === undefined) throw new ConfigError(`Backend.${field}`, value, problem)
    groups[family] = group
  }
  if (groups.inet === undefined && groups.inet6 === undefined) return undefined
  for (const family of FAMILIES) {
    if (ranges[family] === undefined || groups[family] !== undefined) continue
    const problem = `each family needs one, such as ${GROUPS[family].example}`
    throw new ConfigError(`Backend.${GROUPS[family].field}`, undefined, problem)
  }
  return groups
}

function readGroup(text: string, family: Family): Ip | undefined {
  try {
    const ip = parseIp(text)
    return ipFamily(ip) === family && isMulticast(ip) ? ip : undefined
  } catch (error) {
    if (error instanceof AddressError) return undefined
    throw error
  }
}
