/** Japanese. A string that is missing here is said in English. */
export default {
  title: 'チャット', open: 'チャットを開く', close: 'チャットを閉じる', newChat: '新しい会話', greeting: 'ご用件をどうぞ', placeholder: 'メッセージを入力',
  send: '送信', stop: '停止', attach: 'ファイルを追加', remove: '{name} を外す', log: '会話', assistant: 'アシスタント', you: 'あなた',
  earlier: '以前のメッセージ', toEnd: '最後へ移動', chats: '会話の一覧', untitled: '会話', rename: '名前を変更', save: '保存', connecting: '接続中…',
  reconnecting: '接続が切れました。再接続中…', signedOut: 'サインインの期限が切れました。もう一度サインインしてください。', refused: 'このページではチャットを利用できません。',
  working: '処理中…', tool: '処理中: {name}', toolDone: '完了: {name}', toolFailed: '失敗: {name}', reasoning: '考え', sources: '出典',
  stopped: 'この回答は停止されました。', retry: 'もう一度試す', edit: '編集', notSent: '未送信です。接続が戻ると送信されます。', approval: '承認が必要です', approve: '承認',
  reject: '拒否', approved: '承認しました。', rejected: '拒否しました。', settled: '回答済み、または待機終了です。', form: '情報の入力', submit: '送信', skip: 'スキップ',
  submitted: 'ありがとうございます。', skipped: 'スキップしました。', name: '名前', email: 'メール', phone: '電話', other: 'その他', optional: '任意', otp: 'ご本人の確認',
  otpSent: '{to} にコードを送りました。', code: 'コード', verify: '確認', verified: '確認しました。メッセージを再送します。', human: '担当者の確認が必要です。',
  copy: 'コピー', copied: 'コピーしました', copyFailed: 'コピーできません', unread: '未読 {count} 件',
  AGENT_ERROR: '回答を完了できませんでした。もう一度お試しください。', INTERNAL_ERROR: '問題が起きました。もう一度お試しください。',
};
