/**
 * The ipsec backend: IPv4 in ESP, between each two hosts a connection of strongSwan's charon. This file says the
 * connections as values; `ipsec-charon.ts` loads them.
 *
 * A packet for a peer's subnet needs a route, any route: the security policy of the connection takes it from there, and what
 * leaves is routed anew, by its outer address. Ours leads to the external interface without a gateway, so that a packet
 * which no policy takes (charon was stopped) finds no neighbour, and goes nowhere in the clear.
 */

import type { Ip } from '../address/ip.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import type { ViciSection } from '../vici/message.ts'
import { type Backend, type HostFacts, NOTHING } from './backend.ts'
import { judgeReachable } from './host-gw.ts'
import { requireAddress, requireIpv4Alone, scopeOf } from './links.ts'
import { routeTo } from './routes.ts'

/** Outer header, ESP with its IV, padding and check value: flannel's figure, for any proposal. Bytes. */
const OVERHEAD = 77
/** The UDP header between the two. */
const ENCAP_OVERHEAD = 8
/** What IPv4 needs of a link. */
const LEAST_MTU = 68

const LEAST_PSK = 96
/** A vici value ends there. */
const MOST_PSK = 65_535

/** flannel's, so that hosts with either agree. */
const IKE_PROPOSAL = 'aes256-sha256-modp4096'
const ESP_PROPOSAL = 'aes128gcm16-sha256-prfsha256-ecp256'

export interface IpsecSettings {
  readonly psk: string
  readonly espProposal: string
  /** ESP in UDP, also where no NAT is seen. */
  readonly encap: boolean
}

/** How peers see us, and where we send from. */
export interface IpsecHost {
  readonly local: Ip
  readonly publicIp: Ip
}

/** What one peer needs of charon. */
export interface Connection {
  /** flannel's form: `<our IP>-<our subnet>-<its subnet>-<its IP>`. */
  readonly name: string
  readonly child: string
  /** For `load-conn`. */
  readonly load: ViciSection
  /** For `load-shared`: the key is for these two hosts alone, whatever else charon serves. */
  readonly shared: ViciSection & { readonly id: string }
}

/** @throws {ConfigError} */
export function readIpsecSettings({ backend: { settings } }: NetworkConfig): IpsecSettings {
  const psk = settings.string('PSK', '')
  if (psk.length < LEAST_PSK || Buffer.byteLength(psk) > MOST_PSK) {
    const problem = psk.length < LEAST_PSK ? 'config error, password is too short' : 'it is too long'
    // The key itself is not for a log.
    throw new ConfigError(
      'Backend.PSK',
      `(${psk.length} characters)`,
      `${problem}; allowed are ${LEAST_PSK} to ${MOST_PSK}`,
    )
  }
  const espProposal = settings.string('ESPProposal', ESP_PROPOSAL)
  if (!/^[a-z0-9_]+(?:-[a-z0-9_]+)*$/i.test(espProposal)) {
    throw new ConfigError(
      'Backend.ESPProposal',
      espProposal,
      `it must be a proposal such as "${ESP_PROPOSAL}"`,
    )
  }
  return { psk, espProposal, encap: settings.boolean('UDPEncap', false) }
}

/** @throws {ConfigError} */
export function planIpsec(config: NetworkConfig, host: HostFacts): Backend {
  const { encap } = readIpsecSettings(config)
  requireIpv4Alone(config, 'ipsec')
  requireAddress('inet', host, 'ipsec')
  const { name, mtu: outer } = host.external
  const mtu = outer - OVERHEAD - (encap ? ENCAP_OVERHEAD : 0)
  if (mtu < LEAST_MTU) {
    throw new ConfigError('Backend.Type', 'ipsec', `MTU ${outer} of iface ${name} is too small for ipsec`)
  }
  return {
    type: 'ipsec',
    leaseType: 'ipsec',
    mac: {},
    mtu,
    scope: scopeOf(host, config),
    needsUnderlay: false,
    advertised: {},
    judge: (lease) => judgeReachable(lease, ['inet']),
    own: () => NOTHING,
    peer: ({ subnets: { inet } }) =>
      inet === undefined ? NOTHING : { entries: [routeTo(inet, name, undefined)], answers: [] },
  }
}

/** Undefined for a lease that is not IPv4's. */
export function connectionTo(
  peer: Lease,
  own: Lease,
  { local, publicIp }: IpsecHost,
  { psk, espProposal, encap }: IpsecSettings,
): Connection | undefined {
  const [remote, remoteSubnet] = [peer.publicIps.inet, peer.subnets.inet]
  const subnet = own.subnets.inet
  if (remote === undefined || remoteSubnet === undefined || subnet === undefined) return undefined
  const name = [publicIp, subnet, remoteSubnet, remote].join('-')
  const child = `${subnet}-${remoteSubnet}`
  const connection: ViciSection = {
    version: '2',
    local_addrs: [local],
    remote_addrs: [remote],
    proposals: [IKE_PROPOSAL],
    encap: encap ? 'yes' : 'no',
    // For ever, and a peer that is silent for so long is called: without it a host that lost its state is never noticed.
    keyingtries: '0',
    dpd_delay: '30s',
    local: { auth: 'psk', id: publicIp },
    remote: { auth: 'psk', id: remote },
    children: {
      [child]: {
        local_ts: [subnet],
        remote_ts: [remoteSubnet],
        esp_proposals: [espProposal],
        mode: 'tunnel',
        // The policies are there from now on, so that nothing leaves in the clear before, between and after the tunnels.
        start_action: 'trap',
        dpd_action: 'restart',
        rekey_time: '1h',
      },
    },
  }
  return {
    name,
    child,
    load: { [name]: connection },
    shared: { id: `tweed ${publicIp} ${remote}`, type: 'IKE', data: psk, owners: [publicIp, remote] },
  }
}

/** Whether charon has the connection because of us, or of flannel in our place: it is one of our subnet's. */
export function isOurs(name: string, own: Lease): boolean {
  const [address = '', subnet, , remote = '', ...rest] = name.split('-')
  const isAddress = (text: string): boolean => /^[0-9.]+$/.test(text)
  return subnet === own.subnets.inet && isAddress(address) && isAddress(remote) && rest.length === 0
}
