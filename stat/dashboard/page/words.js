// What the page says, in each of its languages.

const en = {
  skip: 'Skip to the console', sections: 'Sections', live: 'Live', try: 'Try it', apps: 'Apps', language: 'Language',
  theme: 'Colours', auto: 'System', light: 'Light', dark: 'Dark', window: 'the last 10 minutes',
  connecting: 'connecting', connected: 'connected', disconnected: 'not connected', lost: 'no data: trying again',
  up: (node, time) => `${node} · up ${time}`,

  sessions: 'Sessions', members: 'members', anonymous: 'anonymous', pending: 'pending',
  subscriptions: 'Subscriptions', all: 'all', pushes: 'Pushes', accepted: 'accepted', notAccepted: 'not accepted',
  deliveries: 'Deliveries', delivered: 'queued', queue: 'Queue time', p50: 'median', p99: '99 %',
  written: 'Written to clients', bytes: 'bytes', slow: 'Slow clients', kicked: 'closed 4008', dropped: 'messages dropped',
  resumes: 'Resumes', recovered: 'recovered', unrecovered: 'not recovered', refused: 'Refusals',
  memory: 'Memory', rss: 'resident', heap: 'heap', cpu: 'CPU', used: 'of one core', process: 'Process',
  files: 'open files', goroutines: 'goroutines', perSecond: '/s',

  pushTitle: 'Push a message', app: 'App', toMember: 'To member', everybody: 'everybody', text: 'Text', pushKey: 'Push key',
  push: 'Push', copy: 'Copy as curl', copied: 'Copied', curl: 'The same from a terminal', gateway: 'Gateway',
  receipt: (r) => `${r.code}: offset ${r.offset}, ${r.subscribers} subscribed here, durability ${r.durability}`,
  unreachable: 'the gateway does not answer',
  nothing: 'This gateway lets nobody try it from here.',
  anonymousPane: 'Anonymous client', memberPane: 'Member', memberId: 'Member', token: 'Token',
  connect: 'Connect', disconnect: 'Disconnect', subscribe: 'Subscribe', unsubscribe: (app) => `Unsubscribe ${app}`,
  events: 'joins', presence: 'Who is here', pushAsMember: 'Push as member', log: (pane) => `${pane}: frames`,
  sent: 'sent', received: 'received',
  closed: (e) => `closed ${e.code}${e.reason ? ': ' + e.reason : ''}${e.reconnect ? '; coming back' : ''}`,
  gap: (app) => `${app}: what was missed is no longer there; going on from now`,
  rule: (e) => (e.rule ? `rule ${e.rule} (${e.where}), ${e.choice}: ${e.reason}` : e.reason),

  filter: 'Filter by name', found: (n, all) => (n === all ? `${all}` : `${n} of ${all}`),
  appsCaption: 'Every app of this node, with its subscriptions, pushes and history',
  name: 'Name', subs: 'Subscriptions', memberCount: 'Members', pushRate: 'Pushes/s', pushCount: 'Pushes',
  deliveryCount: 'Deliveries', logMessages: 'History', logBytes: 'Bytes',
}

const zh = {
  skip: '跳到控制台', sections: '栏目', live: '实时', try: '试一试', apps: '应用', language: '语言',
  theme: '配色', auto: '跟随系统', light: '浅色', dark: '深色', window: '最近 10 分钟',
  connecting: '连接中', connected: '已连接', disconnected: '未连接', lost: '没有数据，正在重试',
  up: (node, time) => `${node} · 已运行 ${time}`,

  sessions: '会话', members: '成员', anonymous: '匿名', pending: '待认证',
  subscriptions: '订阅', all: '全部', pushes: '推送', accepted: '已接受', notAccepted: '未接受',
  deliveries: '投递', delivered: '已入队', queue: '排队时间', p50: '中位数', p99: '99 %',
  written: '写给客户端', bytes: '字节', slow: '慢客户端', kicked: '断开 4008', dropped: '丢弃的消息',
  resumes: '续传', recovered: '已补齐', unrecovered: '未补齐', refused: '拒绝',
  memory: '内存', rss: '常驻', heap: '堆', cpu: 'CPU', used: '占一个核', process: '进程',
  files: '打开的文件', goroutines: '协程', perSecond: '/秒',

  pushTitle: '推送一条消息', app: '应用', toMember: '给成员', everybody: '所有人', text: '内容', pushKey: '推送密钥',
  push: '推送', copy: '复制为 curl', copied: '已复制', curl: '在终端里这样做', gateway: '网关',
  receipt: (r) => `${r.code}：位置 ${r.offset}，本机 ${r.subscribers} 个订阅，持久性 ${r.durability}`,
  unreachable: '网关没有应答',
  nothing: '这个网关不允许在这里试用。',
  anonymousPane: '匿名客户端', memberPane: '成员', memberId: '成员', token: '令牌',
  connect: '连接', disconnect: '断开', subscribe: '订阅', unsubscribe: (app) => `退订 ${app}`,
  events: '进出', presence: '谁在线', pushAsMember: '以成员身份推送', log: (pane) => `${pane}：帧`,
  sent: '发出', received: '收到',
  closed: (e) => `已断开 ${e.code}${e.reason ? '：' + e.reason : ''}${e.reconnect ? '；正在重连' : ''}`,
  gap: (app) => `${app}：错过的消息已不在，从现在继续`,
  rule: (e) => (e.rule ? `规则 ${e.rule}（${e.where}），${e.choice}：${e.reason}` : e.reason),

  filter: '按名称筛选', found: (n, all) => (n === all ? `${all}` : `${all} 个中的 ${n} 个`),
  appsCaption: '本节点的每个应用及其订阅、推送和历史',
  name: '名称', subs: '订阅', memberCount: '成员', pushRate: '推送/秒', pushCount: '推送',
  deliveryCount: '投递', logMessages: '历史', logBytes: '字节',
}

/** All words, by language. */
export const words = { en, zh }

/** The language in use. */
export let language = 'en'

const changed = []

/** Calls f now and whenever the language changes. */
export function onLanguage(f) {
  changed.push(f)
  f()
}

/** What the page says for key; args are for the keys that are sentences about something. */
export function t(key, ...args) {
  const word = words[language][key]
  return typeof word === 'function' ? word(...args) : word
}

/** Says all that is below root in the language in use. */
export function translate(root) {
  for (const e of root.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t)
  for (const e of root.querySelectorAll('[data-t-label]')) e.setAttribute('aria-label', t(e.dataset.tLabel))
  for (const e of root.querySelectorAll('[data-t-placeholder]')) e.placeholder = t(e.dataset.tPlaceholder)
}

/** Changes the language of the whole page. */
export function setLanguage(to) {
  language = words[to] ? to : 'en'
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'
  translate(document)
  for (const f of changed) f()
}
