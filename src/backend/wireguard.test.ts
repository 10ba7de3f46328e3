import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { parseIp } from '../address/ip.ts'
import { formatKey, publicKeyOf, Secret } from '../address/key.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { keyOf, type Peer } from '../state.ts'
import type { Backend, HostFacts } from './backend.ts'
import { checkWireguard, wireguard } from './wireguard.ts'

const ADDRESSES = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00::10') }
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: ADDRESSES },
  publicIps: ADDRESSES,
  links: new Map([['flannel.1', { mac: undefined, addresses: [parseIp('10.10.10.0')] }]]),
  underlay: [],
}
const PRIVATE_KEY = formatKey(new Uint8Array(32).fill(1))
const OWN = publicKeyOf(PRIVATE_KEY)
const KEY = formatKey(new Uint8Array(32).fill(11))
const PSK = formatKey(new Uint8Array(32).fill(9))
const DUAL = { EnableIPv6: true, IPv6Network: 'fd10::/48' }
const V6_ONLY = { ...DUAL, EnableIPv4: false }

function config(settings: object, network: object): ReturnType<typeof parseNetworkConfig> {
  const Backend = { Type: 'wireguard', ...settings }
  return parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...network, Backend }))
}

function backend(settings: object = {}, network: object = {}, host = HOST): Backend {
  return wireguard(config(settings, network), host, new Secret(PRIVATE_KEY))
}

const PEER: Lease = {
  key: '10.10.11.0-24&fd10:0:0:11::-64' as LeaseKey,
  subnets: { inet: parsePrefix('10.10.11.0/24'), inet6: parsePrefix('fd10:0:0:11::/64') },
  publicIps: { inet: parseIp('192.168.1.11'), inet6: parseIp('fd00::11') },
  backendType: 'wireguard',
  backendData: { inet: { PublicKey: KEY, Port: 51820 }, inet6: { PublicKey: KEY, Port: 51821 } },
  expires: undefined,
  created: 11,
}

function inet(data: unknown = PEER.backendData.inet): Lease {
  const [subnet, publicIp] = [parsePrefix('10.10.11.0/24'), parseIp('192.168.1.11')]
  return { ...PEER, subnets: { inet: subnet }, publicIps: { inet: publicIp }, backendData: { inet: data } }
}

/** Link, endpoint, port, allowed IPs. */
function peers(plan: Backend, lease = PEER): string[] {
  return plan.peer(lease).entries.map((entry) => {
    const { link, endpoint, port, allowedIps } = entry as Peer
    return `${link} ${endpoint} ${port} ${allowedIps.join()}`
  })
}

describe('wireguard', () => {
  test('has one device for IPv4 alone, with the whole network routed into it', () => {
    const plan = backend()
    assert.deepEqual([plan.type, plan.leaseType, plan.mtu], ['wireguard', 'wireguard', 1420])
    assert.equal(JSON.stringify(plan.advertised), JSON.stringify({ inet: { PublicKey: OWN, Port: 51820 } }))
    const { entries } = plan.own({ ...inet(), subnets: { inet: parsePrefix('10.10.10.0/24') } })
    assert.deepEqual(entries.map(keyOf), [
      'link flannel-wg',
      'address flannel-wg 10.10.10.0/32',
      'route 254 10.10.0.0/16 0',
    ])
    const [link, , route] = entries
    assert.ok(link?.kind === 'link' && route?.kind === 'route')
    assert.deepEqual([link.mtu, link.up, link.mac], [1420, true, undefined])
    assert.ok(link.tunnel?.type === 'wireguard')
    assert.deepEqual([link.tunnel.publicKey, link.tunnel.listenPort], [OWN, 51820])
    assert.equal(link.tunnel.privateKey?.reveal(), PRIVATE_KEY)
    assert.deepEqual([route.link, route.gateway], ['flannel-wg', undefined])
    assert.deepEqual([...plan.scope.links], ['flannel-wg', 'flannel.1'])
    assert.deepEqual([...(plan.scope.wireguard ?? [])], ['flannel-wg'])
  })

  test('has a second device for IPv6, with its own port', () => {
    const plan = backend({}, DUAL)
    assert.deepEqual(plan.advertised, {
      inet: { PublicKey: OWN, Port: 51820 },
      inet6: { PublicKey: OWN, Port: 51821 },
    })
    assert.deepEqual(plan.own(PEER).entries.map(keyOf), [
      'link flannel-wg',
      'address flannel-wg 10.10.11.0/32',
      'route 254 10.10.0.0/16 0',
      'link flannel-wg-v6',
      'address flannel-wg-v6 fd10:0:0:11::/128',
      'route 254 fd10::/48 1024',
    ])
    assert.deepEqual(peers(plan), [
      'flannel-wg 192.168.1.11 51820 10.10.11.0/24',
      'flannel-wg-v6 fd00::11 51821 fd10:0:0:11::/64',
    ])
    assert.deepEqual(peers(backend({}, V6_ONLY)), ['flannel-wg-v6 fd00::11 51821 fd10:0:0:11::/64'])
  })

  test('gives each peer the settings', () => {
    const plan = backend({ PSK, PersistentKeepaliveInterval: 25, ListenPort: 1, MTU: 9000 })
    const [peer] = plan.peer(inet({ PublicKey: KEY })).entries
    assert.ok(peer?.kind === 'peer')
    assert.deepEqual([peer.publicKey, peer.keepalive, plan.mtu], [KEY, 25, 8920])
    assert.equal(peer.presharedKey?.reveal(), PSK)
  })

  test('sends to our own port where a peer says none', () => {
    for (const data of [{ PublicKey: KEY }, { PublicKey: KEY, Port: 0 }]) {
      assert.deepEqual(peers(backend({ ListenPort: 7 }), inet(data)), [
        'flannel-wg 192.168.1.11 7 10.10.11.0/24',
      ])
    }
    const silent = { ...PEER, backendData: { inet: { PublicKey: KEY }, inet6: { PublicKey: KEY } } }
    assert.match(peers(backend({ ListenPortV6: 8 }, DUAL), silent)[1] ?? '', / 8 /)
  })
})

describe('a Mode with one device', () => {
  const both = '10.10.11.0/24,fd10:0:0:11::/64'

  test('carries both families and says its one port in both data', () => {
    const plan = backend({ Mode: 'ipv6' }, DUAL)
    assert.deepEqual(plan.advertised, {
      inet: { PublicKey: OWN, Port: 51820 },
      inet6: { PublicKey: OWN, Port: 51820 },
    })
    assert.deepEqual(plan.own(PEER).entries.map(keyOf), [
      'link flannel-wg',
      'address flannel-wg 10.10.11.0/32',
      'route 254 10.10.0.0/16 0',
      'address flannel-wg fd10:0:0:11::/128',
      'route 254 fd10::/48 1024',
    ])
    // flannel's peers say another port in BackendV6Data, where they do not listen.
    assert.deepEqual(peers(plan), [`flannel-wg fd00::11 51820 ${both}`])
    assert.deepEqual(peers(backend({ Mode: 'ipv4' }, DUAL)), [`flannel-wg 192.168.1.11 51820 ${both}`])
  })

  test('auto chooses as flannel does', () => {
    const publicHost = (inet6: string): HostFacts => ({
      ...HOST,
      publicIps: { ...ADDRESSES, inet6: parseIp(inet6) },
    })
    for (const [inetIp, inet6Ip, own6, chosen] of [
      ['192.168.1.11', 'fd00::11', 'fd00::10', '192.168.1.11'],
      ['198.51.100.1', '2001:db8::1', '2001:db8::2', '198.51.100.1'],
      ['172.31.0.1', '2001:db8::1', '2001:db8::2', '2001:db8::1'],
      ['10.0.0.1', '2001:db8::1', 'fd00::10', '10.0.0.1'],
      ['10.0.0.1', 'fd00::11', '2001:db8::2', '10.0.0.1'],
    ] as const) {
      const lease = { ...PEER, publicIps: { inet: parseIp(inetIp), inet6: parseIp(inet6Ip) } }
      assert.deepEqual(
        peers(backend({ Mode: 'auto' }, DUAL, publicHost(own6)), lease),
        [`flannel-wg ${chosen} 51820 ${both}`],
        `${inetIp} ${inet6Ip} ${own6}`,
      )
    }
    const only6 = {
      ...PEER,
      publicIps: { inet6: parseIp('fd00::11') },
      subnets: { inet6: parsePrefix('fd10:0:0:11::/64') },
    }
    assert.match(peers(backend({ Mode: 'auto' }, V6_ONLY), only6).join(), /^flannel-wg fd00::11 /)
  })

  test('refuses a peer that it cannot send to, or that has two keys', () => {
    const plan = backend({ Mode: 'ipv6' }, DUAL)
    assert.deepEqual(plan.judge(inet()), {
      refused: 'it has no public IPv6 address, which the Mode ipv6 sends to',
    })
    const two = { ...PEER, backendData: { ...PEER.backendData, inet6: { PublicKey: OWN } } }
    assert.match(String(Object.values(plan.judge(two))), /different PublicKeys/)
    assert.deepEqual(plan.judge(PEER), {
      claims: [{ kind: 'PublicKey', name: KEY, value: 'fd00::11 port 51820' }],
    })
  })
})

describe('a lease', () => {
  test('claims its key for the place where it is', () => {
    assert.deepEqual(backend({}, DUAL).judge(PEER), {
      claims: [
        { kind: 'PublicKey', name: KEY, value: '192.168.1.11 port 51820' },
        { kind: 'IPv6 PublicKey', name: KEY, value: 'fd00::11 port 51821' },
      ],
    })
  })

  test('is refused for what is wrong in it', () => {
    for (const [data, reason] of [
      [undefined, /^it has no BackendData$/],
      [{}, /^BackendData \{\} has no PublicKey$/],
      ['text', /has no PublicKey/],
      [{ PublicKey: 7 }, /has no PublicKey/],
      [{ PublicKey: 'short' }, /^PublicKey "short" is not 32 bytes in base64$/],
      [{ PublicKey: formatKey(new Uint8Array(32)) }, /is nobody's$/],
      [{ PublicKey: OWN }, /is our own$/],
      [{ PublicKey: KEY, Port: 65536 }, /^Port 65536 is not a whole number/],
      [{ PublicKey: KEY, Port: '51820' }, /^Port "51820" is not a whole number/],
    ] as const) {
      const verdict = backend().judge({ ...inet(), backendData: data === undefined ? {} : { inet: data } })
      assert.ok('refused' in verdict, JSON.stringify(data))
      assert.match(verdict.refused, reason)
    }
    const { inet: _, ...none } = PEER.subnets
    assert.deepEqual(backend().judge({ ...PEER, subnets: none }), { refused: 'it has no IPv4 subnet' })
  })
})

describe('a config that cannot be', () => {
  test('is refused with field, value and what is allowed, without any key', () => {
    for (const [settings, network, message] of [
      [{ ListenPort: 0 }, {}, /Backend\.ListenPort is 0: .*1 to 65535/],
      [{ ListenPortV6: 65536 }, {}, /Backend\.ListenPortV6 is 65536/],
      [{ ListenPort: 51821 }, DUAL, /Backend\.ListenPortV6 is 51821: .*another one than ListenPort/],
      [{ MTU: 147 }, {}, /Backend\.MTU is 147: wireguard takes 80 bytes of it and IPv4 needs 68/],
      [{ MTU: 1359 }, DUAL, /Backend\.MTU is 1359: .*IPv6 needs 1280/],
      [{ PersistentKeepaliveInterval: -1 }, {}, /Backend\.PersistentKeepaliveInterval is -1/],
      [
        { Mode: 'both' },
        {},
        /Backend\.Mode is "both": no valid Mode configured; .*separate, auto, ipv4, ipv6/,
      ],
      [{ Mode: 'ipv6' }, {}, /Backend\.Mode is "ipv6": it needs EnableIPv6: true/],
      [{ Mode: 'ipv4' }, V6_ONLY, /Backend\.Mode is "ipv4": it needs EnableIPv4: true/],
    ] as const) {
      assert.throws(() => checkWireguard(config(settings, network), HOST), { name: 'ConfigError', message })
    }
    const noV6 = { ...HOST, publicIps: { inet: ADDRESSES.inet } }
    assert.throws(
      () => checkWireguard(config({}, DUAL), noV6),
      /EnableIPv6 is true: eth0 must have an IPv6 address/,
    )
  })

  test('does not show a PSK, right or wrong', () => {
    for (const wrong of ['c2VjcmV0LXNlY3JldA==', `${PSK} `, [PSK], { key: PSK }, 12345678]) {
      assert.throws(
        () => checkWireguard(config({ PSK: wrong }, {}), HOST),
        (error: Error) => {
          assert.match(error.message, /Backend\.PSK .*could not parse psk: it must be 32 bytes in base64/)
          return !error.message.includes(JSON.stringify(wrong)) && !error.message.includes(PSK)
        },
      )
    }
    const plan = backend({ PSK })
    const shown = inspect([plan, plan.own(inet()), plan.peer(inet())], { depth: 9, showHidden: true })
    assert.ok(!shown.includes(PSK) && !shown.includes(PRIVATE_KEY))
  })

  test('that is no JSON and has a PSK is not shown', () => {
    const text = `{"PSK": "${PSK}" "Network"}`
    assert.throws(
      () => parseNetworkConfig(text),
      (error: Error) => /it is not JSON/.test(error.message) && !error.message.includes(PSK.slice(0, 6)),
    )
  })
})
