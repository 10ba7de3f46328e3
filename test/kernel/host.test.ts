/** Which interface carries the outer packets, by flannel's rules, on real interfaces. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { parseIp } from '../../src/address/ip.ts'
import { type InterfaceChoice, readInterfaces } from '../../src/kernel/host.ts'
import { Host } from './namespace.ts'

const NOTHING: InterfaceChoice = { ifaces: [], regexes: [], canReach: undefined, publicIp: undefined }

describe('the external interface', () => {
  let host: Host
  before(async () => {
    host = await Host.create('192.168.1.10')
    await host.ip('link add eth1 mtu 9000 type veth peer name wire1')
    await host.ip('addr add 169.254.7.7/16 dev eth1')
    await host.ip('addr add 10.7.0.5/24 dev eth1')
    await host.ip('addr add 10.7.0.6/24 dev eth1')
    for (const link of ['eth1', 'wire1']) await host.ip(`link set ${link} up`)
  })
  after(() => host[Symbol.asyncDispose]())

  async function choose(choice: Partial<InterfaceChoice>): Promise<[string, string, string]> {
    const { external } = await readInterfaces({ ...NOTHING, ...choice }, host.path)
    const { name, address, publicIp } = external
    return [name, address, publicIp]
  }

  test('there is none when nothing says which and there is no default route', async () => {
    await assert.rejects(choose({}), {
      name: 'HostError',
      message: /no default route.*eth0:\[192\.168\.1\.10\]/,
    })
  })

  test('by name: its first global address', async () => {
    assert.deepEqual(await choose({ ifaces: ['eth1'] }), ['eth1', '10.7.0.5', '10.7.0.5'])
  })

  test('by IP: that address', async () => {
    assert.deepEqual(await choose({ ifaces: ['10.7.0.6'] }), ['eth1', '10.7.0.6', '10.7.0.6'])
  })

  test('the first that exists, names before regular expressions, addresses before names in these', async () => {
    assert.deepEqual((await choose({ ifaces: ['none', 'eth0'], regexes: [/eth1/] }))[0], 'eth0')
    assert.deepEqual(
      await choose({ ifaces: ['none'], regexes: [/^10\\.7\\.0\\.6$/] }).catch(() => 'none'),
      'none',
    )
    assert.deepEqual(await choose({ regexes: [/^10\.7\.0\.6$/] }), ['eth1', '10.7.0.6', '10.7.0.6'])
    assert.deepEqual((await choose({ regexes: [/^eth1$/] }))[0], 'eth1')
  })

  test('none that matches is an error that says what there is', async () => {
    await assert.rejects(choose({ ifaces: ['none'], regexes: [/nothing/] }), {
      name: 'HostError',
      message: /failed to find interface to use that matches none, \/nothing\/ \(there are lo:\[\], /,
    })
  })

  test('by what it reaches: with the source address that the kernel takes', async () => {
    assert.deepEqual(await choose({ canReach: parseIp('10.7.0.99') }), ['eth1', '10.7.0.5', '10.7.0.5'])
    await assert.rejects(choose({ canReach: parseIp('203.0.113.1') }), {
      name: 'HostError',
      message: /no route to it/,
    })
  })

  test('by the public IP, when it is local', async () => {
    assert.deepEqual(await choose({ publicIp: parseIp('10.7.0.6') }), ['eth1', '10.7.0.6', '10.7.0.6'])
  })

  test('of the default route, the one with the lowest metric; a public IP that is not local is only announced', async () => {
    await host.ip('route add default via 192.168.1.1 metric 200')
    await host.ip('route add default via 10.7.0.1 metric 100')
    assert.deepEqual(await choose({}), ['eth1', '10.7.0.5', '10.7.0.5'])
    assert.deepEqual(await choose({ publicIp: parseIp('203.0.113.7') }), ['eth1', '10.7.0.5', '203.0.113.7'])
  })

  test('links are known by name, with MAC and addresses', async () => {
    const { links } = await readInterfaces({ ...NOTHING, ifaces: ['eth0'] }, host.path)
    const [row] = await host.list('link show eth1')
    assert.deepEqual(links.get('eth1'), {
      mac: row?.['address'],
      addresses: ['10.7.0.5', '10.7.0.6', '169.254.7.7'],
    })
  })
})
