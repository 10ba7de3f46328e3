import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf } from '../state.ts'
import type { HostFacts } from './backend.ts'
import { connectionTo, isOurs, planIpsec, readIpsecSettings } from './ipsec.ts'

const LOCAL = parseIp('192.168.1.10')
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: { inet: LOCAL } },
  publicIps: { inet: LOCAL },
  links: new Map(),
  underlay: [],
}
const PSK = 'k'.repeat(96)

function config(settings: object = {}, network: object = {}) {
  const Backend = { Type: 'ipsec', PSK, ...settings }
  return parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...network, Backend }))
}

function lease(n: number): Lease {
  return {
    key: `10.10.${n}.0-24` as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(`192.168.1.${n}`) },
    backendType: 'ipsec',
    backendData: {},
    expires: undefined,
    created: n,
  }
}

describe('ipsec', () => {
  test('has a smaller MTU, no data, and a route without a gateway to each peer', () => {
    const plan = planIpsec(config(), HOST)
    assert.deepEqual([plan.type, plan.leaseType, plan.mtu, plan.advertised], ['ipsec', 'ipsec', 1423, {}])
    assert.equal(planIpsec(config({ UDPEncap: true }), HOST).mtu, 1415)
    assert.deepEqual(plan.own(lease(10)).entries, [])
    const [route, ...rest] = plan.peer(lease(11)).entries
    assert.deepEqual(rest, [])
    assert.ok(route?.kind === 'route')
    assert.equal(keyOf(route), 'route 254 10.10.11.0/24 0')
    assert.deepEqual([route.link, route.gateway], ['eth0', undefined])
    assert.deepEqual(plan.judge(lease(11)), { claims: [] })
    assert.deepEqual(plan.judge({ ...lease(11), publicIps: {} }), { refused: 'it has no IPv4 subnet' })
  })

  test('a connection has the form, and by default the proposals, of flannel', () => {
    const addresses = { local: LOCAL, publicIp: parseIp('203.0.113.7') }
    const found = connectionTo(lease(11), lease(10), addresses, readIpsecSettings(config()))
    const name = '203.0.113.7-10.10.10.0/24-10.10.11.0/24-192.168.1.11'
    assert.deepEqual(found, {
      name,
      child: '10.10.10.0/24-10.10.11.0/24',
      load: {
        [name]: {
          version: '2',
          local_addrs: ['192.168.1.10'],
          remote_addrs: ['192.168.1.11'],
          proposals: ['aes256-sha256-modp4096'],
          encap: 'no',
          keyingtries: '0',
          dpd_delay: '30s',
          local: { auth: 'psk', id: '203.0.113.7' },
          remote: { auth: 'psk', id: '192.168.1.11' },
          children: {
            '10.10.10.0/24-10.10.11.0/24': {
              local_ts: ['10.10.10.0/24'],
              remote_ts: ['10.10.11.0/24'],
              esp_proposals: ['aes128gcm16-sha256-prfsha256-ecp256'],
              mode: 'tunnel',
              start_action: 'trap',
              dpd_action: 'restart',
              rekey_time: '1h',
            },
          },
        },
      },
      shared: {
        id: 'tweed 203.0.113.7 192.168.1.11',
        type: 'IKE',
        data: PSK,
        owners: ['203.0.113.7', '192.168.1.11'],
      },
    })
    assert.equal(
      connectionTo({ ...lease(11), subnets: {} }, lease(10), addresses, readIpsecSettings(config())),
      undefined,
    )
  })

  test('settings are in the connection', () => {
    const settings = readIpsecSettings(config({ UDPEncap: true, ESPProposal: 'aes256gcm16-ecp384' }))
    const text = JSON.stringify(
      connectionTo(lease(11), lease(10), { local: LOCAL, publicIp: LOCAL }, settings),
    )
    assert.match(text, /"encap":"yes"/)
    assert.match(text, /"esp_proposals":\["aes256gcm16-ecp384"\]/)
  })

  test('a connection is ours when it is of our subnet, whatever our address was', () => {
    const own = lease(10)
    assert.ok(isOurs('192.168.1.10-10.10.10.0/24-10.10.11.0/24-192.168.1.11', own))
    assert.ok(isOurs('192.168.1.99-10.10.10.0/24-10.10.11.0/24-192.168.1.11', own))
    for (const other of [
      '192.168.1.10-10.10.12.0/24-10.10.11.0/24-192.168.1.11',
      'office',
      'a-10.10.10.0/24-10.10.11.0/24-192.168.1.11',
      '192.168.1.10-10.10.10.0/24-10.10.11.0/24-192.168.1.11-b',
    ]) {
      assert.ok(!isOurs(other, own), other)
    }
  })

  for (const [settings, network, message] of [
    [
      { PSK: 'secret' },
      {},
      'Backend.PSK is "(6 characters)": config error, password is too short; allowed are 96 to 65535',
    ],
    [
      { PSK: undefined },
      {},
      'Backend.PSK is "(0 characters)": config error, password is too short; allowed are 96 to 65535',
    ],
    [
      { PSK: 'k'.repeat(65_536) },
      {},
      'Backend.PSK is "(65536 characters)": it is too long; allowed are 96 to 65535',
    ],
    [
      { ESPProposal: 'aes; reboot' },
      {},
      'Backend.ESPProposal is "aes; reboot": it must be a proposal such as "aes128gcm16-sha256-prfsha256-ecp256"',
    ],
    [{ UDPEncap: 'yes' }, {}, 'Backend.UDPEncap is "yes": it must be true or false'],
    [{}, { EnableIPv6: true, IPv6Network: 'fd10::/48' }, 'EnableIPv6 is true: ipsec carries IPv4 only'],
  ] as const) {
    test(`${message.slice(0, 60)} is refused`, () => {
      assert.throws(() => planIpsec(config(settings, network), HOST), { name: 'ConfigError', message })
    })
  }

  test('an interface that is too small is refused', () => {
    const external = { ...HOST.external, mtu: 144 }
    assert.throws(
      () => planIpsec(config(), { ...HOST, external }),
      /MTU 144 of iface eth0 is too small for ipsec/,
    )
    assert.equal(planIpsec(config(), { ...HOST, external: { ...external, mtu: 145 } }).mtu, 68)
  })
})
