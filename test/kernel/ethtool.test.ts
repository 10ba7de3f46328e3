/** Features of a vxlan link, as we read and switch them and as `ethtool` sees them. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Connection, Subscription } from '../../src/netlink/connection.ts'
import {
  decodeFeatures,
  ETHTOOL,
  ETHTOOL_MONITOR,
  ETHTOOL_MSG_FEATURES_NTF,
  type Features,
  featureState,
  getFeatures,
  setFeatures,
  TX_CHECKSUM_IP_GENERIC,
} from '../../src/netlink/ethtool.ts'
import { decodeFamily, type Family, getFamily, NETLINK_GENERIC } from '../../src/netlink/generic.ts'
import { Host } from './namespace.ts'

const LINK = 'flannel.1'
const ON = { [TX_CHECKSUM_IP_GENERIC]: true }
const OFF = { [TX_CHECKSUM_IP_GENERIC]: false }

describe('features of a link', { timeout: 120_000 }, () => {
  let host: Host
  let connection: Connection
  let ethtool: Family & { readonly id: number }
  let ifindex: number

  before(async () => {
    host = await Host.create('192.168.1.10')
    await host.ip(`link add ${LINK} type vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472`)
    ifindex = await host.index(LINK)
    connection = Connection.open({ netns: host.path, protocol: NETLINK_GENERIC })
    const { id, ...family } = decodeFamily((await connection.get(getFamily(ETHTOOL))).payload)
    assert.ok(id !== undefined)
    ethtool = { ...family, id }
  })

  after(async () => {
    connection.close()
    await host[Symbol.asyncDispose]()
  })

  async function read(): Promise<Features> {
    return decodeFeatures((await connection.get(getFeatures(ethtool.id, ifindex))).payload)
  }

  async function change(wanted: Readonly<Record<string, boolean>>): Promise<Features> {
    return decodeFeatures((await connection.get(setFeatures(ethtool.id, ifindex, wanted))).payload)
  }

  /** `ethtool -k`, whose first lines are of several features each. */
  async function judge(): Promise<Map<string, string>> {
    const lines = (await host.exec('ethtool', '-k', LINK)).split('\n')
    return new Map(
      lines.map((line) => line.trim().split(': ')).map(([name = '', state = '']) => [name, state]),
    )
  }

  test('are what ethtool says of all of them', async () => {
    const features = await read()
    assert.equal(features.ifindex, ifindex)
    const judged = await judge()
    let compared = 0
    for (const { name } of features.changeable?.bits ?? []) {
      // Some bits have no name, and `ethtool` knows some features by another.
      if (name === undefined || name === '') continue
      const state = featureState(features, name)
      const said = judged.get(name)
      if (said === undefined || state === undefined) continue
      assert.equal(state.active, said.startsWith('on'), name)
      assert.equal(state.changeable, !said.includes('[fixed]'), name)
      compared++
    }
    assert.ok(compared > 30, `${compared} features`)
  })

  test('the checksum offload is switched off and on, and nothing that does not need it', async () => {
    const before = await read()
    assert.deepEqual(featureState(before, TX_CHECKSUM_IP_GENERIC), {
      active: true,
      wanted: true,
      changeable: true,
    })
    const { wanted, active } = await change(OFF)
    assert.deepEqual(wanted?.bits, [])
    assert.ok(active?.bits.some(({ name, on }) => name === TX_CHECKSUM_IP_GENERIC && !on))
    const off = await read()
    assert.deepEqual(featureState(off, TX_CHECKSUM_IP_GENERIC), {
      active: false,
      wanted: false,
      changeable: true,
    })
    assert.equal((await judge()).get(TX_CHECKSUM_IP_GENERIC), 'off')
    assert.deepEqual(featureState(off, 'tx-scatter-gather')?.active, true)
    await connection.request(setFeatures(ethtool.id, ifindex, ON))
    assert.deepEqual(await read(), before)
    assert.equal((await judge()).get(TX_CHECKSUM_IP_GENERIC), 'on')
  })

  test('what cannot be done now is wanted, and not active', async () => {
    await change(OFF)
    const { wanted } = await change({ 'tx-tcp-segmentation': true })
    assert.deepEqual(wanted?.bits, [{ index: 16, name: 'tx-tcp-segmentation', on: true }])
    const state = featureState(await read(), 'tx-tcp-segmentation')
    assert.deepEqual(state, { active: false, wanted: true, changeable: true })
    await change(ON)
  })

  test('a change by others is told, and none when nothing changes', async () => {
    const group = ethtool.groups.get(ETHTOOL_MONITOR)
    assert.ok(group !== undefined)
    using subscription = Subscription.open({
      netns: host.path,
      protocol: NETLINK_GENERIC,
      groups: [group],
    })
    await host.exec('ethtool', '-K', LINK, TX_CHECKSUM_IP_GENERIC, 'off')
    await host.exec('ethtool', '-K', LINK, TX_CHECKSUM_IP_GENERIC, 'off')
    const events = subscription.drain()
    const told = events
      .flatMap((event) => (event.kind === 'messages' ? event.messages : []))
      .map(({ payload }) => decodeFeatures(payload))
    assert.deepEqual(
      told.map((features) => [features.command, features.ifindex]),
      [[ETHTOOL_MSG_FEATURES_NTF, ifindex]],
    )
    const bit = (await read()).changeable?.bits.find(({ name }) => name === TX_CHECKSUM_IP_GENERIC)
    assert.ok(bit?.index !== undefined)
    assert.ok(told[0]?.active?.bits.every(({ index }) => index !== bit.index))
    await change(ON)
  })

  test('errors say what was asked for, and the sentence of the kernel', async () => {
    await assert.rejects(connection.get(getFeatures(ethtool.id, 9999)), {
      code: 'ENODEV',
      message: 'ETHTOOL_MSG_FEATURES_GET of link 9999: ENODEV: no device matches ifindex',
    })
    await assert.rejects(change({ 'tx-no-such': false }), {
      code: 'EOPNOTSUPP',
      operation: `ETHTOOL_MSG_FEATURES_SET of link ${ifindex}`,
    })
    await assert.rejects(connection.get(getFamily('no-such')), {
      code: 'ENOENT',
      operation: 'CTRL_CMD_GETFAMILY no-such',
    })
  })
})
