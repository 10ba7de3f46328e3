/** The settings of the wireguard backend, in flannel's names. */

import { FAMILIES, type Family } from '../address/ip.ts'
import { NO_KEY, parseKey, Secret } from '../address/key.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import { FAMILY_NAMES, type HostFacts } from './backend.ts'

/** Outer IPv6 40, UDP 8, WireGuard 32: with outer IPv4 20 bytes are left over. */
export const OVERHEAD = 80
/** What each family needs of a link. */
const LEAST_MTU: Readonly<Record<Family, number>> = { inet: 68, inet6: 1280 }

/** In the order in which an error lists them. */
const MODES = ['separate', 'auto', 'ipv4', 'ipv6'] as const
export type Mode = (typeof MODES)[number]

export interface WireguardSettings {
  readonly mode: Mode
  readonly listenPorts: Readonly<Record<Family, number>>
  /** Of the outer packets. */
  readonly outerMtu: number
  readonly presharedKey: Secret | undefined
  /** Seconds. */
  readonly keepalive: number
}

/** @throws {ConfigError} */
export function readWireguardSettings(config: NetworkConfig, host: HostFacts): WireguardSettings {
  const { settings } = config.backend
  const port = (field: string, otherwise: number): number =>
    settings.integer(field, { min: 1, max: 65535, default: otherwise })
  const outerMtu = settings.integer('MTU', { min: 0, max: 65535, default: 0 }) || host.external.mtu
  for (const family of FAMILIES) {
    if (config.ranges[family] === undefined || outerMtu - OVERHEAD >= LEAST_MTU[family]) continue
    const problem = `wireguard takes ${OVERHEAD} bytes of it and ${FAMILY_NAMES[family]} needs ${LEAST_MTU[family]}`
    throw new ConfigError('Backend.MTU', outerMtu, problem)
  }
  const listenPorts = { inet: port('ListenPort', 51820), inet6: port('ListenPortV6', 51821) }
  const mode = readMode(config)
  if (mode === 'separate' && listenPorts.inet === listenPorts.inet6 && config.ranges.inet !== undefined) {
    const problem = 'with the Mode "separate" it must be another one than ListenPort'
    if (config.ranges.inet6 !== undefined)
      throw new ConfigError('Backend.ListenPortV6', listenPorts.inet6, problem)
  }
  return {
    mode,
    listenPorts,
    outerMtu,
    presharedKey: readPresharedKey(config),
    keepalive: settings.integer('PersistentKeepaliveInterval', { min: 0, max: 65535, default: 0 }),
  }
}

/** @throws {ConfigError} */
function readMode({ backend: { settings }, ranges }: NetworkConfig): Mode {
  const given = settings.string('Mode', 'separate')
  const mode = MODES.find((one) => one === given)
  if (mode === undefined) {
    throw new ConfigError(
      'Backend.Mode',
      given,
      `no valid Mode configured; it must be one of: ${MODES.join(', ')}`,
    )
  }
  // A lease is read in the families of the network alone: there would be no address to send to.
  for (const [only, family] of [
    ['ipv4', 'inet'],
    ['ipv6', 'inet6'],
  ] as const) {
    if (mode !== only || ranges[family] !== undefined) continue
    throw new ConfigError('Backend.Mode', mode, `it needs Enable${FAMILY_NAMES[family]}: true`)
  }
  return mode
}

/** The key is a secret: no error repeats it, right or wrong. @throws {ConfigError} */
function readPresharedKey({ backend: { settings } }: NetworkConfig): Secret | undefined {
  let text: string
  try {
    text = settings.string('PSK', '')
    if (text === '') return undefined
    const key = parseKey(text)
    return key === NO_KEY ? undefined : new Secret(key)
  } catch {
    throw new ConfigError('Backend.PSK', '(not shown)', 'could not parse psk: it must be 32 bytes in base64')
  }
}
