/** Which interface carries the outer packets, by flannel's rules, on real interfaces. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Family } from '../../src/address/ip.ts'
import { parseIp } from '../../src/address/ip.ts'
import { type HostQuestion, readInterfaces, watchInterfaces } from '../../src/kernel/host.ts'
import type { InterfaceChoice } from '../../src/kernel/selection.ts'
import { Host } from './namespace.ts'

const NOTHING: InterfaceChoice = { ifaces: [], regexes: [], canReach: undefined, publicIps: {} }

/** The same host in each family: eth0 has an address, eth1 two global ones and a link-local one. */
const FAMILIES = {
  inet: {
    eth0: '192.168.1.10',
    eth1: ['10.7.0.5', '10.7.0.6', '169.254.7.7'],
    second: /^10\.7\.0\.6$/,
    nearEth1: '10.7.0.99',
    gateways: ['192.168.1.1', '10.7.0.1'],
    remote: '203.0.113.7',
    name: 'IPv4',
  },
  inet6: {
    eth0: 'fd00:192::10',
    eth1: ['fd00:7::5', 'fd00:7::6', 'fe80::7'],
    second: /^fd00:7::6$/,
    nearEth1: 'fd00:7::99',
    gateways: ['fd00:192::1', 'fd00:7::1'],
    remote: '2001:db8::7',
    name: 'IPv6',
  },
} as const

/** eth1 with its link-local address first, as the kernel may tell it. */
async function createHost(families: readonly Family[]): Promise<Host> {
  const host = await Host.create('192.168.1.10')
  await host.ip('link add eth1 mtu 9000 type veth peer name wire1')
  // Without addresses of the kernel's making, which come at any time.
  for (const link of ['eth0', 'eth1', 'wire', 'wire1']) await host.ip(`link set ${link} addrgenmode none`)
  for (const link of ['eth1', 'wire1']) await host.ip(`link set ${link} up`)
  for (const link of ['eth0', 'wire', 'eth1']) await host.ip(`addr flush dev ${link}`)
  for (const family of families) {
    const { eth0, eth1 } = FAMILIES[family]
    const [first, second, linkLocal] = eth1
    await add(host, linkLocal, 'eth1')
    await add(host, eth0, 'eth0')
    await add(host, first, 'eth1')
    await add(host, second, 'eth1')
  }
  return host
}

async function add(host: Host, ip: string, link: string, ...more: string[]): Promise<void> {
  const words = ip.includes(':') ? [`${ip}/64 dev ${link} nodad`] : [`${ip}/24 dev ${link}`]
  await host.ip(['addr add', ...words, ...more].join(' '))
}

function chooser(host: () => Host, families: readonly Family[]) {
  return async (choice: Partial<InterfaceChoice>) => {
    const question = { choice: { ...NOTHING, ...choice }, families, underlay: false }
    const { external, publicIps } = await readInterfaces(question, host().path)
    return { name: external.name, addresses: external.addresses, publicIps }
  }
}

for (const family of ['inet', 'inet6'] as const) {
  const { eth0, eth1, second, nearEth1, gateways, remote, name } = FAMILIES[family]
  const [first, other] = eth1

  describe(`the external interface of an ${name} network`, () => {
    let host: Host
    before(async () => {
      host = await createHost([family])
    })
    after(() => host[Symbol.asyncDispose]())
    const choose = chooser(() => host, [family])

    async function assertChosen(
      choice: Partial<InterfaceChoice>,
      link: string,
      ip: string,
      publicIp = ip,
    ): Promise<void> {
      assert.deepEqual(await choose(choice), {
        name: link,
        addresses: { [family]: ip },
        publicIps: { [family]: publicIp },
      })
    }

    test('there is none when nothing says which and there is no default route', async () => {
      const error = await choose({}).catch((reason: unknown) => reason)
      assert.ok(error instanceof Error)
      assert.match(error.message, new RegExp(`^there is no ${name} default route`))
      assert.ok(error.message.includes(`eth0:[${eth0}]`), error.message)
    })

    test('by name: its first global address', () => assertChosen({ ifaces: ['eth1'] }, 'eth1', first))

    test('by IP: that address', () => assertChosen({ ifaces: [other] }, 'eth1', other))

    test('the first that exists, names before regular expressions, addresses before names in these', async () => {
      await assertChosen({ ifaces: ['none', 'eth0'], regexes: [/eth1/] }, 'eth0', eth0)
      await assertChosen({ regexes: [second] }, 'eth1', other)
      await assertChosen({ regexes: [/none/, /^eth1$/] }, 'eth1', first)
    })

    test('none that matches is an error that says what there is', async () => {
      await assert.rejects(choose({ ifaces: ['none'], regexes: [/nothing/] }), {
        name: 'HostError',
        message: /^failed to find interface to use that matches none, \/nothing\/ \(there are lo:\[\], /,
      })
    })

    test('one without an address of the family is an error', async () => {
      await assert.rejects(choose({ ifaces: ['wire'] }), {
        name: 'HostError',
        message: `failed to find ${name} address for interface wire`,
      })
    })

    test('by what it reaches: with the source address that the kernel takes', async () => {
      const canReach = parseIp(nearEth1)
      const { name: link, addresses } = await choose({ canReach })
      const [route] = await host.list(`route get ${nearEth1}`)
      assert.deepEqual([link, addresses], ['eth1', { [family]: route?.['prefsrc'] }])
      await assert.rejects(choose({ canReach: parseIp(remote) }), {
        name: 'HostError',
        message: `-iface-can-reach is ${remote}: this host has no route to it`,
      })
    })

    test('by the public IP, when it is local', () =>
      assertChosen({ publicIps: { [family]: parseIp(other) } }, 'eth1', other))

    test('of the default route, the one with the lowest metric; a public IP that is not local is only announced', async () => {
      await host.ip(`route add default via ${gateways[0]} metric 200`)
      await host.ip(`route add default via ${gateways[1]} metric 100`)
      await assertChosen({}, 'eth1', first)
      await assertChosen({ publicIps: { [family]: parseIp(remote) } }, 'eth1', first, remote)
    })

    test('links are known by name, with MAC and addresses', async () => {
      const question = { choice: { ...NOTHING, ifaces: ['eth0'] }, families: [family], underlay: false }
      const { links, underlay } = await readInterfaces(question, host.path)
      const [row] = await host.list('link show eth1')
      assert.deepEqual(links.get('eth1'), { mac: row?.['address'], addresses: eth1 })
      assert.deepEqual(underlay, [])
    })
  })
}

describe('of two families', () => {
  let host: Host
  before(async () => {
    host = await createHost(['inet', 'inet6'])
    await add(host, '10.9.0.9', 'wire')
  })
  after(() => host[Symbol.asyncDispose]())
  const choose = chooser(() => host, ['inet', 'inet6'])
  const ETH0 = { inet: '192.168.1.10', inet6: 'fd00:192::10' }
  const ETH1 = { inet: '10.7.0.5', inet6: 'fd00:7::5' }

  test('both are on one interface, whatever named it', async () => {
    const choices = [
      { ifaces: ['eth1'] },
      { ifaces: ['fd00:7::5'] },
      { ifaces: ['10.7.0.5'] },
      { regexes: [/^eth1$/] },
      { regexes: [/7.+5$/] },
      { canReach: parseIp('10.7.0.99') },
      { publicIps: { inet6: parseIp('fd00:7::5') } },
      { publicIps: { inet: parseIp('10.7.0.5') } },
    ]
    for (const choice of choices)
      assert.deepEqual(await choose(choice), { name: 'eth1', addresses: ETH1, publicIps: ETH1 })
  })

  test('a regular expression must match an address of each', async () => {
    assert.equal((await choose({ regexes: [/^10\.7\./, /^eth0$/] })).name, 'eth0')
    assert.equal((await choose({ regexes: [/^10\.7\.|^fd00:7:/, /^eth0$/] })).name, 'eth1')
  })

  test('an interface that has one of them only is an error', async () => {
    await assert.rejects(choose({ ifaces: ['wire'] }), {
      message: /^failed to find IPv6 address for interface wire$/,
    })
  })

  test('an IPv4 network takes no notice of IPv6', async () => {
    const chosen = await chooser(() => host, ['inet'])({ ifaces: ['fd00:7::6'] })
    assert.deepEqual(chosen, {
      name: 'eth1',
      addresses: { inet: '10.7.0.5' },
      publicIps: { inet: '10.7.0.5' },
    })
  })

  test('both default routes must lead over one interface', async () => {
    await host.ip('route add default via 192.168.1.1')
    await assert.rejects(choose({}), { message: /^there is no IPv6 default route/ })
    await host.ip('route add default via fd00:7::1')
    await assert.rejects(choose({}), {
      message: /^v6 default route interface eth1 must be the same with v4 default route interface eth0/,
    })
    await host.ip('route replace default via fd00:192::1 metric 10')
    assert.deepEqual(await choose({}), { name: 'eth0', addresses: ETH0, publicIps: ETH0 })
  })
})

test('IPv6 addresses: permanent before dynamic, global before link-local, never deprecated, the oldest of equals', async () => {
  await using host = await createHost([])
  await add(host, 'fe80::1', 'eth0')
  await add(host, '2001:db8::1', 'eth0', 'valid_lft 1000 preferred_lft 0')
  await add(host, '2001:db8::2', 'eth0', 'valid_lft 1000 preferred_lft 1000')
  await add(host, '2001:db8::4', 'eth0')
  await add(host, '2001:db8::3', 'eth0')
  const question = { choice: { ...NOTHING, ifaces: ['eth0'] }, families: ['inet6'], underlay: false } as const
  const { external, links } = await readInterfaces(question, host.path)
  assert.deepEqual(external.addresses, { inet6: '2001:db8::4' })
  assert.deepEqual(links.get('eth0')?.addresses, ['2001:db8::4', '2001:db8::3', '2001:db8::2', 'fe80::1'])
})

test('routes of the underlay: those that lead to hosts on a link of ours, and what is taken out of them', async () => {
  await using host = await createHost(['inet', 'inet6'])
  await host.ip('link add flannel.1 type bridge')
  await host.ip('link set flannel.1 up')
  const routes = [
    '172.16.0.0/12 dev eth0',
    '172.16.9.0/24 via 192.168.1.1',
    '172.16.8.0/24 dev eth0 metric 20',
    '172.16.8.0/24 via 192.168.1.1 metric 10',
    '172.16.7.0/24 via inet6 fd00:192::1 dev eth0',
    'blackhole 172.16.6.0/24',
    // No part of a route to hosts on a link of ours.
    '10.20.0.0/16 via 192.168.1.1',
    '10.10.11.0/24 via 10.10.11.0 dev flannel.1 onlink',
    '172.16.5.0/24 dev flannel.1',
    '172.16.4.0/24 via 192.168.1.11 proto 84',
    'fd00:300::/32 dev eth0',
    'fd00:300:1::/48 via fd00:192::1',
  ]
  for (const route of routes) await host.ip(`route add ${route}`)
  const question = {
    choice: { ...NOTHING, ifaces: ['eth0'] },
    families: ['inet', 'inet6'],
    underlay: true,
  } as const
  const { underlay } = await readInterfaces(question, host.path)
  assert.deepEqual(
    new Map(underlay.map(({ prefix, direct }) => [prefix, direct])),
    new Map(
      Object.entries({
        '172.16.0.0/12': true,
        '172.16.6.0/24': false,
        '172.16.7.0/24': false,
        '172.16.8.0/24': false,
        '172.16.9.0/24': false,
        '192.168.1.0/24': true,
        'fd00:192::/64': true,
        'fd00:300:1::/48': false,
        'fd00:300::/32': true,
      }),
    ),
  )
})

describe('the facts are read again', () => {
  let host: Host
  before(async () => {
    host = await createHost(['inet', 'inet6'])
  })
  after(() => host[Symbol.asyncDispose]())

  /** Which of the commands, given one after the other, are followed by a look. */
  async function looksAfter(question: Partial<HostQuestion>, commands: readonly string[]): Promise<string[]> {
    const stop = new AbortController()
    const all: HostQuestion = { choice: NOTHING, families: ['inet'], underlay: false, ...question }
    const watch = watchInterfaces(all, stop.signal, host.path)
    // The first look is at once; the next begins to wait.
    await watch.next()
    let looked = false
    const next = () => watch.next().then(({ done }) => (looked = done !== true))
    let pending = next()
    const followed: string[] = []
    for (const command of commands) {
      await host.ip(command)
      // Twice as long as changes are waited for that come together.
      await sleep(400)
      if (!looked) continue
      followed.push(command)
      looked = false
      pending = next()
    }
    stop.abort()
    await pending
    return followed
  }

  const INET = [
    'route add default via 192.168.1.1 proto static',
    'address add 10.7.0.8/24 dev eth1',
    'link set eth1 mtu 1400',
  ]
  const INET6 = ['-6 route add default via fd00:192::1', 'address add fd00:7::8/64 dev eth1 nodad']
  const UNDERLAY = ['route add 172.16.9.0/24 via 192.168.1.1', '-6 route add fd00:9::/64 via fd00:192::1']
  const OURS = [
    'route add 10.10.20.0/24 via 192.168.1.20 proto 84',
    'route add default via 192.168.1.1 metric 9 proto 84',
  ]

  test('for what may matter in the families of the network, and never for a route of ours', async () => {
    assert.deepEqual(await looksAfter({}, [...OURS, ...UNDERLAY, ...INET, ...INET6]), INET)
  })

  test('for routes of the underlay where they are asked for', async () => {
    const removed = [...OURS, ...UNDERLAY, ...INET6].map((command) =>
      command.replace(' add ', ' del ').replace(' nodad', ''),
    )
    const question: Partial<HostQuestion> = { families: ['inet', 'inet6'], underlay: true }
    assert.deepEqual(await looksAfter(question, removed), removed.slice(OURS.length))
  })

  test('for any route where -iface-can-reach depends on it', async () => {
    const choice = { ...NOTHING, canReach: parseIp('fd00:9::1') }
    const route = '-6 route add fd00:9::/64 via fd00:192::1 table 100'
    assert.deepEqual(await looksAfter({ choice, families: ['inet6'] }, [route]), [route])
  })
})
